"""A learned number for each task with an optimizer of its own: a step that a task sits out is none for it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmtl_jax.balancing.base import where_task
from mmtl_jax.core.types import Array


def initial(num_tasks: int, value: float, optimizer: optax.GradientTransformation) -> tuple[Array, Any]:
    """Returns `values [T]` and the optimizer's state, each leaf with a leading task axis."""
    # A dtype by name: a weakly typed state would make the second step compile again.
    values = jnp.full((num_tasks,), value, jnp.result_type(float))
    return values, jax.vmap(optimizer.init)(values)


def step(
    optimizer: optax.GradientTransformation, gradient: Array, values: Array, state: Any, active: Array
) -> tuple[Array, Any]:
    """Returns values and state after a step down `gradient [T]`; those of inactive tasks stay as they were."""
    gradient = jnp.where(active, gradient, 0.0).astype(values.dtype)
    updates, stepped = jax.vmap(optimizer.update)(gradient, state, values)
    return where_task(active, (values + updates, stepped), (values, state))


def bounded_exp(values: Array) -> Array:
    """Returns exp(values), held within the square root of the largest and above that of the smallest number."""
    limit = jnp.log(jnp.finfo(values.dtype).max) / 2
    return jnp.exp(jnp.clip(values, -limit, limit))
