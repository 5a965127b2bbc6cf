"""Weights on the simplex of the active tasks."""

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.arithmetic import reciprocal
from mmtl_jax.balancing.base import active_sum, mask_inactive, where_task
from mmtl_jax.core.types import Array


def project(values: Array, active: Array) -> Array:
    """Returns the nearest point to `values [T]` on the simplex of the active tasks; without any, zeros.

    The active tasks' values less a level, or 0 where that is negative. The level is the greatest, over the sets of the
    k largest values, of (their sum - 1) / k: with the level at which the result sums to 1, no set can sum to more.
    All sets at once, in O(T^2), are faster than sorting for such T.
    """
    values = mask_inactive(values, active)
    at_least = (values[None, :] >= values[:, None]) & active[None, :]
    # Relative to the largest, so that the sums stay exact.
    values = values - jnp.max(jnp.where(active, values, -jnp.inf))
    sums = jnp.sum(jnp.where(at_least, values[None, :], 0), axis=1)
    levels = (sums - 1) / jnp.maximum(jnp.sum(at_least, axis=1), 1)
    level = jnp.max(jnp.where(active, levels, -jnp.inf))
    return mask_inactive(jnp.maximum(values - level, 0), active)


def softmax(values: Array, active: Array) -> Array:
    """Returns the softmax of `values [T]` over the active tasks; without any, zeros."""
    return mask_inactive(jax.nn.softmax(jnp.where(active, values, -jnp.inf)), active)


def restrict(weights: Array, active: Array) -> Array:
    """Returns the weights `[T]` of the active tasks scaled to sum 1; equal ones if they are all 0."""
    total, count = active_sum(weights, active), jnp.maximum(jnp.sum(active), 1)
    return mask_inactive(jnp.where(total > 0, weights * reciprocal(total), 1 / count), active)


def extend(weights: Array, active: Array, before: Array) -> Array:
    """Undoes `restrict`: the active tasks share what they had before by the new weights, the others keep theirs."""
    return where_task(active, weights * active_sum(before, active), before)
