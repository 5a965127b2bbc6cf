"""One number made of all losses: the weights are its derivatives by each loss."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from mmtl_jax.balancing.base import (
    Balancer,
    Signals,
    active_mean,
    active_softmax,
    check_length,
    mask_inactive,
    positive_tasks,
    where_task,
)
from mmtl_jax.core.types import Array


def gls() -> Balancer:
    """Returns the geometric loss strategy (Chennupati et al., 1904.08492).

    The geometric mean of the n active losses; so the weights, which for losses of 1 are 1 / n each, are

        w_t = (L_1 ... L_n)^(1/n) / (n L_t).

    Factor 1 against LibMTL and TorchJD's GeometricMean. Every loss times its weight is the same.

    Task-own parameters get their gradient times the weight: they minimise the geometric mean too.

    A task with a loss of 0 sits out, for the others' gradients would vanish and its own be infinite; so does, under
    `jax.jit`, one with a negative loss, of which there is no mean; outside `jax.jit` a negative loss raises.

    Raises:
      ValueError: from `update` outside `jax.jit`, a loss is negative.
    """

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        able = positive_tasks('gls', signals.losses, signals.active)
        logs = jnp.log(jnp.where(able, signals.losses, 1.0))
        weights = jnp.exp(active_mean(logs, able) - logs) / jnp.maximum(jnp.sum(able), 1)
        return mask_inactive(weights, able), state

    return Balancer(init=lambda num_tasks: (), update=update)


class STCHState(NamedTuple):
    """Attributes: count `[T]`, the steps in which a task was active; nadir `[T]`, the sum of losses in the window."""

    count: Array
    nadir: Array


def stch(
    mu: float = 1.0,
    *,
    weights: Sequence[float] | None = None,
    reference: float | Sequence[float] = 0.0,
    warmup_steps: int = 0,
    nadir_steps: int = 0,
) -> Balancer:
    """Returns smooth Tchebycheff scalarization (Lin et al., 2402.19078), a smooth greatest loss.

    The paper's function of the preference p and the reference point z, taken if `nadir_steps` is 0, and its weights:

        mu log sum of exp(p_t (L_t - z_t) / mu),    w = p softmax(p (L - z) / mu).

    TorchJD has this one (factor 1). The authors' multi-task code, and LibMTL, have another, taken if `nadir_steps` is
    positive: with the nadir n_t, the mean loss over `nadir_steps` steps after `warmup_steps`,

        T mu log sum of exp(log(L_t / n_t) / mu),    w_t = T softmax(log(L / n) / mu)_t / L_t,

    and until then the sum of log L_t, so w_t = 1 / L_t (factor 1 against LibMTL, where both are numbers of epochs). The
    steps are those in which the task was active; a task whose nadir is not known yet is weighted 1 / L_t beside the
    others.

    Task-own parameters get their gradient times the weight: they minimise the same function.

    With a nadir, a task with a loss of 0 sits out, and so does, under `jax.jit`, one with a negative loss, of which
    there is no logarithm; outside `jax.jit` a negative loss raises.

    Args:
      mu: smoothness; towards 0 only the greatest term counts. 1 is LibMTL's default.
      weights: the preference p, positive; by default 1 / n for the n active tasks.
      reference: the point z that no loss goes below, for all tasks or one per task.
      warmup_steps: steps of a task before its nadir is measured; LibMTL's default is 4 epochs.
      nadir_steps: steps over which it is measured; LibMTL: 1 epoch.

    Raises:
      ValueError: mu or a weight is not positive, a number of steps is negative, or a preference, a reference or a
        warm-up is given that the chosen form does not have; from `init`, their number is not the number of tasks; from
        `update` outside `jax.jit`, a loss is negative where its logarithm is taken.
    """
    if not mu > 0:
        raise ValueError(f'mu of stch must be positive, got {mu}.')
    if warmup_steps < 0 or nadir_steps < 0:
        raise ValueError(f'stch needs numbers of steps of at least 0, got {warmup_steps=} and {nadir_steps=}.')
    if nadir_steps:
        if weights is not None or not (isinstance(reference, int | float) and reference == 0):
            raise ValueError('stch has weights and a reference, or a nadir: give one or the other.')
        return _stch_nadir(mu, warmup_steps, nadir_steps)
    if warmup_steps:
        raise ValueError(f'stch warms up before its nadir only: give nadir_steps beside {warmup_steps=}.')
    preference, point = _Preference('stch', weights), _Reference('stch', reference)

    def init(num_tasks: int) -> tuple:
        preference.check(num_tasks)
        point.check(num_tasks)
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        share = preference.among(signals.losses, signals.active)
        distance = mask_inactive(point.below(signals.losses), signals.active)
        return share * active_softmax(share * distance / mu, signals.active), state

    return Balancer(init=init, update=update)


def _stch_nadir(mu: float, warmup_steps: int, nadir_steps: int) -> Balancer:
    def init(num_tasks: int) -> STCHState:
        return STCHState(jnp.zeros((num_tasks,), jnp.int32), jnp.zeros((num_tasks,), jnp.result_type(float)))

    def update(signals: Signals, state: STCHState) -> tuple[Array, STCHState]:
        able = positive_tasks('stch', signals.losses, signals.active)
        losses = jnp.where(able, signals.losses, 1.0)
        ready = able & (state.count >= warmup_steps + nadir_steps)
        ratio = jnp.log(losses) - jnp.log(jnp.where(ready, state.nadir / nadir_steps, 1.0))
        weights = jnp.where(ready, jnp.sum(ready) * active_softmax(ratio / mu, ready), 1.0) / losses

        measured = (state.count >= warmup_steps) & (state.count < warmup_steps + nadir_steps)
        nadir = jnp.where(measured, state.nadir + losses, state.nadir).astype(state.nadir.dtype)
        # Held at the end of the window, which it must not leave by overflow.
        after = STCHState(jnp.minimum(state.count + 1, warmup_steps + nadir_steps), nadir)
        weights = mask_inactive(weights, able).astype(signals.losses.dtype)
        return weights, where_task(able, after, state)

    return Balancer(init=init, update=update)


def cosmos(*, penalty: float = 2.0, weights: Sequence[float] | None = None) -> Balancer:
    """Returns COSMOS, a linear scalarization that rewards losses along the preference (Ruchte & Grabocka, 2103.13392).

    With the preference p and the vector of losses L, n active ones,

        p.L - penalty cos(p, L),    w = p - penalty / |L| (p / |p| - cos(p, L) L / |L|).

    In the paper p is drawn for each batch and given to the network too; here it stays, as in TorchJD (factor 1). LibMTL
    does not have it. Weights can be negative: what takes the losses back to the ray is traded against their sum.

    Task-own parameters get their gradient times the weight: they minimise the same function.

    If all losses are 0 there is no cosine, and w = p.

    Args:
      penalty: lambda; the paper takes 0.01 to 8, by data set.
      weights: the preference p, positive; by default 1 / n for the n active tasks.

    Raises:
      ValueError: the penalty is negative or a weight not positive; from `init`, their number is not the number of
        tasks.
    """
    if not penalty >= 0:
        raise ValueError(f'the penalty of cosmos must be at least 0, got {penalty}.')
    preference = _Preference('cosmos', weights)

    def init(num_tasks: int) -> tuple:
        preference.check(num_tasks)
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        share = preference.among(signals.losses, signals.active)
        ray, _ = _direction(share)
        unit, length = _direction(mask_inactive(signals.losses, signals.active))
        off_ray = ray - jnp.sum(ray * unit) * unit
        safe = jnp.where(length > 0, length, 1.0)
        return share - jnp.where(length > 0, penalty / safe, 0.0) * off_ray, state

    return Balancer(init=init, update=update)


def pbi(
    *, theta: float = 5.0, weights: Sequence[float] | None = None, reference: float | Sequence[float] = 0.0
) -> Balancer:
    """Returns penalty-based boundary intersection (Zhang & Li, "MOEA/D", IEEE TEC 2007).

    With the preference's direction u = p / |p| and the reference point z, the losses go down along a ray from z, and
    their distance from it is penalised:

        d_1 + theta d_2,    d_1 = u.(L - z),    d_2 = |(L - z) - d_1 u|,    w = u + theta ((L - z) - d_1 u) / d_2.

    Factor 1 against TorchJD; LibMTL does not have it. Weights can be negative, and at theta = 5 often are: a task below
    the ray is made worse. The squares of the weights sum to 1 + theta^2; on the ray, and for a task alone, to 1.

    Task-own parameters get their gradient times the weight: they minimise the same function.

    On the ray, within rounding, d_2 has no derivative, and of its subgradients the least one, 0, is taken.

    Args:
      theta: the penalty; 5 in the paper.
      weights: the preference p, positive; by default equal.
      reference: the point z that no loss goes below, for all tasks or one per task.

    Raises:
      ValueError: theta is negative or a weight not positive; from `init`, the number of weights or references is not
        the number of tasks.
    """
    if not theta >= 0:
        raise ValueError(f'theta of pbi must be at least 0, got {theta}.')
    preference, point = _Preference('pbi', weights), _Reference('pbi', reference)

    def init(num_tasks: int) -> tuple:
        preference.check(num_tasks)
        point.check(num_tasks)
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        ray, _ = _direction(preference.among(signals.losses, signals.active))
        unit, _ = _direction(mask_inactive(point.below(signals.losses), signals.active))
        off_ray = unit - jnp.sum(ray * unit) * ray
        away, length = _direction(off_ray)
        rounding = 4 * len(unit) * jnp.finfo(unit.dtype).eps
        return ray + jnp.where(length > rounding, theta, 0.0) * away, state

    return Balancer(init=init, update=update)


class _Preference:
    """Positive weights of the tasks; None for equal ones that sum to 1 over the active tasks."""

    def __init__(self, method: str, weights: Sequence[float] | None):
        self.method = method
        self.weights = None if weights is None else [float(weight) for weight in weights]
        if self.weights and not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ValueError(f'{method} weights must be finite and positive, got {self.weights}.')

    def check(self, num_tasks: int) -> None:
        if self.weights is not None:
            check_length(f'{self.method} weights', len(self.weights), num_tasks)

    def among(self, losses: Array, active: Array) -> Array:
        """Returns `[T]`, 0 for inactive tasks, in the dtype of the losses."""
        if self.weights is None:
            values = jnp.broadcast_to(1 / jnp.maximum(jnp.sum(active), 1).astype(losses.dtype), losses.shape)
        else:
            values = jnp.asarray(self.weights, losses.dtype)
        return mask_inactive(values, active)


class _Reference:
    """The point from which losses are counted, one number or one for each task."""

    def __init__(self, method: str, reference: float | Sequence[float]):
        self.method, self.shared = method, isinstance(reference, int | float)
        self.values = [float(reference)] if self.shared else [float(value) for value in reference]

    def check(self, num_tasks: int) -> None:
        if not self.shared:
            check_length(f'{self.method} reference', len(self.values), num_tasks)

    def below(self, losses: Array) -> Array:
        """Returns the losses minus the reference point."""
        return losses - jnp.broadcast_to(jnp.asarray(self.values, losses.dtype), losses.shape)


def _direction(vector: Array) -> tuple[Array, Array]:
    """Returns the unit vector, 0 for the zero vector, and the length, for vectors of any scale."""
    largest = jnp.max(jnp.abs(vector))
    scaled = vector / jnp.where(largest > 0, largest, 1.0)
    length = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(length > 0, length, 1.0), largest * length
