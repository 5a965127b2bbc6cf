"""Balancers around balancers: smoothed weights, weights kept for some steps, a bounded direction.

Each takes a `Balancer`, or in a config its name or a mapping with its name and arguments.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax import balancing
from mmtl_jax.balancing.aggregate import combine
from mmtl_jax.balancing.base import Balancer, Rows, Signals, initial_state
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Array, PyTree

Spec = Balancer | str | Mapping[str, Any]


def inner_balancer(spec: Spec) -> Balancer:
    """Returns the balancer that a wrapper is given, built by name from a config's values."""
    return spec if isinstance(spec, Balancer) else build(spec, balancing)


class EMAState(NamedTuple):
    """Attributes: inner state; averaged weights, `[T]` or `[S, T]`; seen `[T]` bool, the task has been active."""

    inner: Any
    weights: Array
    seen: Array


def ema(balancer: Spec, *, decay: float = 0.9) -> Balancer:
    """Returns the balancer with its weights averaged over the steps, CR-MOGM (Zhou et al., NeurIPS 2022).

        w_k = decay w_(k-1) + (1 - decay) what_k,    w_1 = what_1,

    with what_k the balancer's own weights. It lessens the bias that comes from weights and gradients of the same batch.
    A task's average starts with its first weight and stands still while the task sits out. TorchJD has the same
    (factor 1), LibMTL has it not. The decay of the paper may change from step to step; here it
    is constant, and 0.9 is this library's.

    Task-own parameters get what they get from the balancer inside, by the averaged weights where it weights them.

    Args:
      balancer: any whose direction is a weighted sum of gradients.
      decay: in [0, 1); 0 changes nothing.

    Raises:
      ValueError: the decay is outside [0, 1); from `update`, the balancer returns `Rows`, which are no weights.
    """
    if not 0 <= decay < 1:
        raise ValueError(f'decay of ema must be in [0, 1), got {decay}.')
    inner = inner_balancer(balancer)

    def init(num_tasks: int, gradient: PyTree = None) -> EMAState:
        weights = _no_weights(inner, num_tasks)
        return EMAState(initial_state(inner, num_tasks, gradient), weights, jnp.zeros((num_tasks,), bool))

    def update(signals: Signals, state: EMAState) -> tuple[Array, EMAState]:
        weights, inner_state = inner.update(signals, state.inner)
        weights = _weights('ema', weights)
        seen, active = (jnp.broadcast_to(mask, weights.shape) for mask in (state.seen, signals.active))
        averaged = jnp.where(seen, decay * state.weights + (1 - decay) * weights, weights)
        kept = jnp.where(active, averaged, state.weights).astype(state.weights.dtype)
        averaged = jnp.where(active, averaged, 0.0).astype(weights.dtype)
        return averaged, EMAState(inner_state, kept, state.seen | signals.active)

    return _around(inner, init=init, update=update)


class EveryState(NamedTuple):
    """What the last computation left.

    Attributes:
      inner: the inner state.
      weights: `[T]` or `[S, T]`.
      known: `[T]` bool, the tasks that took part.
      age: int32 scalar, how many steps its weights have served.
    """

    inner: Any
    weights: Array
    known: Array
    age: Array


def every(balancer: Spec, *, steps: int) -> Balancer:
    """Returns the balancer asked only each `steps` steps, its weights kept in between.

    They are computed earlier if a task is active that did not take part in the last computation. A task that sits out a
    step in between gets the weight 0, the others keep theirs. In between, the state of the balancer inside stands
    still. It saves the time that the weights take, an idea of Nash-MTL (Navon et al., 2202.01017), which has it as
    `update_weights_every` in the official code, LibMTL and TorchJD (factor 1 against all).

    Task-own parameters get what they get from the balancer inside, by the kept weights where it weights them.

    Args:
      balancer: any whose direction is a weighted sum of gradients.
      steps: at least 1, which changes nothing.

    Raises:
      ValueError: fewer than one step; from `update`, the balancer returns `Rows`, which are no weights.
    """
    if steps < 1:
        raise ValueError(f'every needs a number of steps of at least 1, got {steps}.')
    inner = inner_balancer(balancer)

    def init(num_tasks: int, gradient: PyTree = None) -> EveryState:
        known, age = jnp.zeros((num_tasks,), bool), jnp.asarray(steps, jnp.int32)
        return EveryState(initial_state(inner, num_tasks, gradient), _no_weights(inner, num_tasks), known, age)

    def update(signals: Signals, state: EveryState) -> tuple[Array, EveryState]:
        def compute() -> EveryState:
            weights, inner_state = inner.update(signals, state.inner)
            weights = _weights('every', weights).astype(state.weights.dtype)
            return EveryState(inner_state, weights, signals.active, jnp.ones_like(state.age))

        def keep() -> EveryState:
            return state._replace(age=state.age + 1)

        due = (state.age >= steps) | jnp.any(signals.active & ~state.known)
        state = jax.lax.cond(due, compute, keep)
        active = jnp.broadcast_to(signals.active, state.weights.shape)
        return jnp.where(active, state.weights, 0.0).astype(signals.losses.dtype), state

    return _around(inner, init=init, update=update)


def clip_norm(balancer: Spec, *, max_norm: float = 1.0) -> Balancer:
    """Returns the balancer with its direction scaled down to a norm of at most `max_norm`.

        w = what min(1, max_norm / |d|),    |d|^2 = what' G what,

    with d the balancer's own direction, that of the shared parameters alone. This is the `max_norm` of the official
    code of Nash-MTL and FAMO, of LibMTL's Nash_MTL and TorchJD's NashMTL (1 in all, factor 1); as there, the sizes of
    the gradients matter from here on. From the Gramian, the norm of a direction in which gradients cancel is exact to
    the square root of the precision, relative to the largest weighted gradient.

    Task-own parameters get what they get from the balancer inside; where it weights them, by the scaled weights, so
    that shared and own parameters keep their proportion. (LibMTL's Nash_MTL scales the shared ones alone.)

    Args:
      balancer: any. One that needs losses alone needs the Gramian now.
      max_norm: positive.

    Raises:
      ValueError: `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f'max_norm of clip_norm must be positive, got {max_norm}.')
    inner = inner_balancer(balancer)

    def init(num_tasks: int, gradient: PyTree = None) -> Any:
        return initial_state(inner, num_tasks, gradient)

    def update(signals: Signals, state: Any) -> tuple[Array | Rows, Any]:
        weights, state = inner.update(signals, state)
        norm = _norm(weights, signals.gramian, leading=signals.losses.ndim)
        factor = jnp.minimum(1.0, max_norm / jnp.where(norm > 0, norm, max_norm))
        if isinstance(weights, Rows):
            return weights.replace(weights=weights.weights * factor), state
        return (weights * factor).astype(weights.dtype), state

    needs = 'gramian' if inner.needs == 'losses' else inner.needs
    return inner._replace(init=_init(needs, init), update=update, needs=needs)


def _norm(weights: Array | Rows, gramian: Array, leading: int) -> Array:
    """Returns the norm of the direction; scaled before squaring, so that none is too large or too small."""
    if isinstance(weights, Rows):
        leaves = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in jax.tree.leaves(weights.rows)]
        direction = combine(weights.weights, leaves)
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in direction]))
        scale = jnp.where(largest > 0, largest, 1.0)
        return scale * jnp.sqrt(sum(jnp.sum((leaf / scale) ** 2) for leaf in direction))
    largest = jnp.max(jnp.abs(weights))
    scaled = weights / jnp.where(largest > 0, largest, 1.0)
    subscripts = 'i,ij,j->' if leading == 1 else 'ai,abij,bj->'
    square = jnp.einsum(subscripts, scaled, gramian, scaled, precision=jax.lax.Precision.HIGHEST)
    return largest * jnp.sqrt(jnp.maximum(square, 0.0))


def _weights(name: str, weights: Array | Rows) -> Array:
    if isinstance(weights, Rows):
        raise ValueError(f'{name} needs a balancer that weights whole gradients; this one returns Rows.')
    return weights


def _no_weights(inner: Balancer, num_tasks: int) -> Array:
    shape = (num_tasks,) if inner.splits == 1 else (inner.splits, num_tasks)
    return jnp.zeros(shape, jnp.result_type(float))


def _init(needs: str, init: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `init` with the arguments that a balancer with such needs has."""
    return init if needs == 'jacobian' else lambda num_tasks: init(num_tasks)


def _around(inner: Balancer, *, init: Callable[..., Any], update: Callable[..., Any]) -> Balancer:
    """Returns a balancer that differs from `inner` in these functions and holds its state in a field `inner`."""

    def inside(function: Callable[[Array, Array, Any], Any] | None) -> Callable[[Array, Array, Any], Any] | None:
        if function is None:
            return None
        return lambda losses, which, state: state._replace(inner=function(losses, which, state.inner))

    return inner._replace(
        init=_init(inner.needs, init), update=update, after=inside(inner.after), validated=inside(inner.validated)
    )
