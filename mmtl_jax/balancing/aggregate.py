"""Balancing in a training loop of one's own: from the tasks' gradients to one direction."""

from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Rows, Signals, initial_state, mask_inactive
from mmtl_jax.balancing.gramian import inner_products, on_every_split, sound_gramian, sums_are_faster
from mmtl_jax.core.types import Array, PyTree


def aggregate(
    balancer: Balancer, jacobian: PyTree, losses: Array | None = None, state: Any = None
) -> tuple[PyTree, Array | Rows, Any]:
    """Returns the direction for the shared parameters, the weights and the balancer's new state.

    Pure, and made for `jax.jit`. Inner products are summed leaf by leaf in at least float32, without a `[T, P]` copy.
    A task whose gradient or loss is not finite, or whose squared gradient norm is beyond the range of the dtype, sits
    out: weight 0, its part of the state as it was, the others balanced as if it did not exist.

    The task-own parameters are the caller's: give each its own task's gradient where `balancer.heads` is 'own', and
    that times the weight where it is 'weighted'. Where the balancer has an `after` (FAMO), call it after the step with
    the losses of the same batch.

    Args:
      balancer: any of this package, or your own.
      jacobian: the tasks' gradients: an array `[T, d]`, or a pytree whose leaves have a leading task axis; for a
        balancer with S > 1 splits, leading axes `[S, T]`.
      losses: `[T]`, or `[S, T]`; by default 1 for each task, where the balancer can do without them.
      state: what the last call returned; None at the first step.

    Returns:
      direction: like one task's gradient.
      weights: `[T]` (`[S, T]`), such that the direction is the sum of weight times gradient; or `Rows`, whose weighted
        sum it is, for a balancer that does not weight whole gradients.
      state: for the next call.

    Raises:
      ValueError: the leaves of the Jacobian disagree about T, the losses have another shape, or they are lacking.
    """
    jacobian = jax.tree.map(jnp.asarray, jacobian)
    shape = _leading_shape(balancer, jacobian)
    if losses is None and balancer.needs == 'losses':
        raise ValueError('this balancer weighs tasks by their losses: call aggregate(balancer, jacobian, losses).')
    losses = jnp.ones(shape) if losses is None else jnp.asarray(losses)
    if losses.shape != shape:
        raise ValueError(f'losses must have the shape {shape} of the leading axes of the Jacobian, got {losses.shape}.')
    if state is None:
        example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[len(shape) :], leaf.dtype), jacobian)
        state = initial_state(balancer, shape[-1], example)

    active = on_every_split(finite_rows(jacobian, len(shape)) & jnp.isfinite(losses))
    jacobian = mask_rows(jacobian, active, len(shape))
    gramian = None
    if balancer.needs != 'losses':
        gramian, active = sound_gramian(inner_products(jacobian, len(shape)), active)
        jacobian = mask_rows(jacobian, active, len(shape))
    signals = Signals(losses, active, gramian, jacobian if balancer.needs == 'jacobian' else None)
    weights, state = balancer.update(signals, state)
    return direction_of(weights, jacobian), weights, state


def direction_of(weights: Array | Rows, jacobian: PyTree) -> PyTree:
    """Returns the direction that a balancer's weights, or its `Rows`, stand for."""
    return sum_rows(weights) if isinstance(weights, Rows) else combine(weights, jacobian)


def sum_rows(rows: Rows) -> PyTree:
    """Returns the weighted sum of the rows."""
    return combine(rows.weights, rows.rows)


def combine(weights: Array, jacobian: PyTree) -> PyTree:
    """Returns the sum of weight times gradient; the leaves lead with the axes of the weights, `[T]` or `[S, T]`."""

    def weighted(leaf: Array) -> Array:
        # In at least the precision of the weights, whatever that of the gradients.
        dtype = jnp.promote_types(leaf.dtype, weights.dtype)
        factors, rows = weights.astype(dtype), leaf.astype(dtype)
        if weights.ndim == 1 and sums_are_faster(len(rows)):
            return sum(factor * row for factor, row in zip(factors, rows, strict=True)).astype(leaf.dtype)
        return jnp.tensordot(factors, rows, axes=weights.ndim, precision=jax.lax.Precision.HIGHEST).astype(leaf.dtype)

    return jax.tree.map(weighted, jacobian)


def finite_rows(jacobian: PyTree, leading: int = 1) -> Array:
    """Returns which gradients are finite everywhere, `[T]` or `[S, T]` bool."""

    def finite(leaf: Array) -> Array:
        return jnp.all(jnp.isfinite(leaf), axis=tuple(range(leading, leaf.ndim)))

    return jnp.all(jnp.stack([finite(leaf) for leaf in jax.tree.leaves(jacobian)]), axis=0)


def mask_rows(jacobian: PyTree, active: Array, leading: int = 1) -> PyTree:
    """Returns the Jacobian with rows of 0 for tasks that are not `active [T]`, whatever theirs were."""
    return mask_inactive(jacobian, active) if leading == 1 else jax.vmap(mask_inactive, (0, None))(jacobian, active)


def _leading_shape(balancer: Balancer, jacobian: PyTree) -> tuple[int, ...]:
    """Returns (T,), or (S, T) for a balancer with splits."""
    leading = 1 if balancer.splits == 1 else 2
    names = '[T, ...]' if leading == 1 else f'[{balancer.splits}, T, ...]'
    shapes = [jnp.shape(leaf)[:leading] for leaf in jax.tree.leaves(jacobian)]
    fits = shapes and len(set(shapes)) == 1 and len(shapes[0]) == leading
    if not fits or (leading == 2 and shapes[0][0] != balancer.splits):
        raise ValueError(f'every leaf of the Jacobian must have the leading axes {names}, got {sorted(set(shapes))}.')
    return shapes[0]
