"""Losses of real numbers, per example: the mean over the outputs, `[B, K]`, `[B, K]` -> `[B]`."""

import jax.numpy as jnp
import optax

from mmtl_jax.core.types import Array


def squared_error(values: Array, targets: Array) -> Array:
    """Returns the mean squared error per row."""
    return jnp.mean(optax.squared_error(values, targets), axis=-1)


def absolute_error(values: Array, targets: Array) -> Array:
    """Returns the mean absolute error per row."""
    return jnp.mean(jnp.abs(values - targets), axis=-1)


def huber(values: Array, targets: Array, *, delta: float = 1.0) -> Array:
    """Returns the mean Huber loss per row: quadratic up to an error of `delta`, linear beyond."""
    return jnp.mean(optax.huber_loss(values, targets, delta=delta), axis=-1)
