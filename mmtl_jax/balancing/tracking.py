"""Methods that balance moving averages of the tasks' gradients: MoCo and DB-MTL."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.balancing import simplex
from mmtl_jax.balancing.arithmetic import along_tasks, reciprocal, scale_tasks, zeros_per_task
from mmtl_jax.balancing.base import Balancer, Rows, Signals, active_mean, mask_inactive, where_task
from mmtl_jax.balancing.gramian import inner_products, mask_gramian
from mmtl_jax.core.types import Array, PyTree

NORMALIZATIONS = ('none', 'loss')
PROJECTIONS = {'simplex': simplex.project, 'softmax': simplex.softmax}


class MoCoState(NamedTuple):
    """State of MoCo.

    Attributes:
      tracked: y, like the Jacobian.
      weights: `[T]`, from 1 for each task on; lambda is in their ratios.
      count: `[T]`, each task's active steps.
    """

    tracked: PyTree
    weights: Array
    count: Array


def moco(
    *,
    beta: float = 0.5,
    beta_power: float = 0.5,
    gamma: float = 0.1,
    gamma_power: float = 0.5,
    rho: float = 0.0,
    normalization: str = 'none',
    projection: str = 'simplex',
) -> Balancer:
    r"""Returns MoCo, multi-objective gradients with correction (Fernando et al., 2210.12624, algorithm 1).

    From y = 0 and lambda = 1 / T, in the k-th step,

        y <- y - beta / k^beta_power (y - g),
        lambda <- P(lambda - gamma / k^gamma_power (y y^T + rho I) lambda),

    with P the projection onto the simplex. The direction is y^T lambda: no combination of this step's gradients, the
    result is `Rows`. The task-own heads receive their own task's gradient, as in LibMTL. TorchJD lacks the method.

    By default, as in the paper, y tracks the gradients themselves; for gamma and rho to mean the same at any scale,
    y y^T is divided by the mean of its diagonal. LibMTL's version is `normalization='loss', projection='softmax'`: it
    tracks g_t / |g_t| times the loss, so that the length of its direction is that of the losses, whatever the
    gradients, and takes P = softmax, which pulls lambda to equal weights in every step. With these, factor 1 against
    LibMTL, but for the 1e-8 beside |g_t|. Rates and powers are LibMTL's defaults.

    Degenerate cases: a zero gradient is tracked like any other (also with 'loss', where its direction is 0); of
    opposite gradients, lambda approaches the weights that cancel.

    Args:
      beta: rate of the moving average y, from 0 to 1.
      beta_power: how fast it falls.
      gamma: rate of lambda.
      gamma_power: how fast it falls.
      rho: regularisation of lambda towards equal weights.
      normalization: 'none' or 'loss'.
      projection: 'simplex' or 'softmax'.

    Raises:
      ValueError: a rate or power out of range; an unknown normalization or projection.
    """
    _check_average('moco', beta, beta_power)
    if gamma < 0 or gamma_power < 0 or rho < 0:
        raise ValueError(f'moco needs gamma, gamma_power and rho >= 0, got {gamma}, {gamma_power} and {rho}.')
    if normalization not in NORMALIZATIONS:
        raise ValueError(f'moco knows the normalizations {list(NORMALIZATIONS)}, got {normalization!r}.')
    if projection not in PROJECTIONS:
        raise ValueError(f'moco knows the projections {sorted(PROJECTIONS)}, got {projection!r}.')

    def init(num_tasks: int, gradient: PyTree) -> MoCoState:
        return MoCoState(zeros_per_task(num_tasks, gradient), jnp.ones(num_tasks), jnp.zeros(num_tasks, jnp.int32))

    def update(signals: Signals, state: MoCoState) -> tuple[Rows, MoCoState]:
        active, count = signals.active, state.count + signals.active
        factors = jnp.ones_like(signals.losses)
        if normalization == 'loss':
            length = jnp.sqrt(jnp.maximum(jnp.diagonal(signals.gramian), 0))
            factors = mask_inactive(signals.losses, active) * reciprocal(length)
        tracked = _track(state.tracked, scale_tasks(factors, signals.jacobian), _fall(beta, count, beta_power), active)

        products = mask_gramian(inner_products(tracked), active)
        if normalization == 'none':
            products = products * reciprocal(active_mean(jnp.diagonal(products), active))
        before = simplex.restrict(state.weights.astype(products.dtype), active)
        slope = jnp.matmul(products, before, precision='highest') + rho * before
        after = PROJECTIONS[projection](before - _fall(gamma, count, gamma_power) * slope, active)
        weights = simplex.extend(after.astype(state.weights.dtype), active, state.weights)
        return Rows(tracked, after), MoCoState(tracked, weights, count)

    return Balancer(init=init, update=update, needs='jacobian', heads='own')


class DBMTLState(NamedTuple):
    """State of DB-MTL: tracked, b, like the Jacobian; count `[T]`, each task's active steps."""

    tracked: PyTree
    count: Array


def db_mtl(*, beta: float = 0.9, beta_power: float = 0.0) -> Balancer:
    r"""Returns DB-MTL, dual balancing of losses and gradients (Lin et al., 2308.12029, algorithm 1).

    From b = 0, in the k-th step, with the gradients of the logarithms of the losses,

        b_t <- g_t / l_t + beta / k^beta_power (b_t - g_t / l_t),    direction = max of |b_s| times sum of b_t / |b_t|.

    With beta = 0 the direction is a combination of this step's gradients, and only their Gramian is needed; else it is
    none, and the result is `Rows`. The task-own heads receive their own task's gradient. LibMTL, like the paper, gives
    them that of the logarithm, 1 / l_t times it: for that, let the loss be a logarithm.

    Factor 1 against LibMTL (TorchJD lacks the method), without its 1e-8 beside l and |b|. Defaults are LibMTL's; as
    there, the average starts at 0 and is not corrected for it: with beta = 0.9, the first direction is a tenth of that
    with beta = 0.

    Degenerate cases: a loss that is not positive has no logarithm, and its task sits out the step; a zero b_t adds
    nothing.

    Args:
      beta: share of the old average, from 0 to 1 (not included).
      beta_power: how fast it falls.

    Raises:
      ValueError: beta or its power is out of range.
    """
    _check_average('db_mtl', beta, beta_power)
    if beta == 1:
        raise ValueError('db_mtl with beta=1 would never move: beta must be less than 1.')

    def balance(length: Array, active: Array) -> Array:
        return mask_inactive(jnp.max(mask_inactive(length, active)) * reciprocal(length), active)

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        active = signals.active & (signals.losses > 0)
        rate = reciprocal(mask_inactive(signals.losses, active))
        length = rate * jnp.sqrt(jnp.maximum(jnp.diagonal(signals.gramian), 0))
        return rate * balance(length, active), state

    def init_tracked(num_tasks: int, gradient: PyTree) -> DBMTLState:
        return DBMTLState(zeros_per_task(num_tasks, gradient), jnp.zeros(num_tasks, jnp.int32))

    def update_tracked(signals: Signals, state: DBMTLState) -> tuple[Rows, DBMTLState]:
        active = signals.active & (signals.losses > 0)
        count = state.count + active
        gradients = scale_tasks(reciprocal(mask_inactive(signals.losses, active)), signals.jacobian)
        tracked = _track(state.tracked, gradients, 1 - _fall(beta, count, beta_power), active)
        factors = balance(jnp.sqrt(_squares(tracked)), active)
        return Rows(tracked, factors), DBMTLState(tracked, count)

    if beta == 0:
        return Balancer(init=lambda num_tasks: (), update=update, needs='gramian', heads='own')
    return Balancer(init=init_tracked, update=update_tracked, needs='jacobian', heads='own')


def _check_average(method: str, beta: float, beta_power: float) -> None:
    if not 0 <= beta <= 1 or beta_power < 0:
        raise ValueError(f'{method} needs a beta between 0 and 1 and a beta_power >= 0, got {beta} and {beta_power}.')


def _fall(rate: float, count: Array, power: float) -> Array:
    """Returns rate / count^power `[T]`."""
    return rate / jnp.maximum(count, 1).astype(jnp.result_type(float)) ** power


def _track(average: PyTree, gradients: PyTree, rate: Array, active: Array) -> PyTree:
    """Returns average + rate (gradients - average) for the active tasks; `rate [T]`."""

    def step(old: Array, new: Array) -> Array:
        return old + along_tasks(rate, old).astype(old.dtype) * (new.astype(old.dtype) - old)

    return where_task(active, jax.tree.map(step, average, gradients), average)


def _squares(tree: PyTree) -> Array:
    """Returns the squared length `[T]` of each row."""
    return sum(jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(tree))
