"""Arithmetic of the methods: division that knows zero, one factor per task, one random key per step."""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, PyTree


def reciprocal(values: Array) -> Array:
    """Returns 1 / values, and 0 where a value is 0."""
    return jnp.where(values == 0, 0, 1 / jnp.where(values == 0, 1, values))


def scale_tasks(factors: Array, tree: PyTree) -> PyTree:
    """Returns the tree, whose leaves lead with the task axis, with task t multiplied by `factors[t]`."""
    return jax.tree.map(lambda leaf: along_tasks(factors, leaf).astype(leaf.dtype) * leaf, tree)


def along_tasks(values: Array, like: Array) -> Array:
    """Returns `values [T]` with as many axes as `like [T, ...]`."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def next_key(key: Array) -> Array:
    """Returns the random key of the next step, for a key that began as `jax.random.PRNGKey(seed)`.

    It counts in the first word, which is 0 for every seed of 32 bits, and so needs no random numbers itself: a split
    would take as long to compile as the draw.
    """
    return key.at[0].add(1)


def zeros_per_task(num_tasks: int, gradient: PyTree) -> PyTree:
    """Returns zeros of the shape of the Jacobian, in at least float32; `gradient` is an example of one task's."""
    return jax.tree.map(
        lambda leaf: jnp.zeros((num_tasks, *leaf.shape), jnp.promote_types(leaf.dtype, jnp.float32)), gradient
    )
