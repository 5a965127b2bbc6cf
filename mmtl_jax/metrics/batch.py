"""Metrics of a batch: pure functions -> (sum, count), to be added up over batches and divided once at the end.

`weights [B]` is 1 for a row that counts and 0 for one without a label or of padding; what such a row holds, NaN
included, changes nothing.
"""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array

Pair = tuple[Array, Array]


def weighted(values: Array, weights: Array) -> Pair:
    """Returns the weighted sum of `values [B]` and the sum of the weights."""
    weights = weights.astype(jnp.float32)
    return jnp.sum(jnp.where(weights > 0, values.astype(jnp.float32), 0.0) * weights), jnp.sum(weights)


def accuracy(logits: Array, labels: Array, weights: Array) -> Pair:
    """Returns how many rows have their label on top: `[B, C]`, `[B]` int."""
    return weighted(jnp.argmax(logits, axis=-1) == labels, weights)


def top_k(logits: Array, labels: Array, weights: Array, *, k: int) -> Pair:
    """Returns how many rows have their label among the `k` highest: `[B, C]`, `[B]` int. Ties go to lower classes."""
    _, best = jax.lax.top_k(logits, k)
    return weighted(jnp.any(best == labels[:, None], axis=-1), weights)


def label_accuracy(logits: Array, targets: Array, weights: Array) -> Pair:
    """Returns the share of labels that are right, summed over the rows: `[B, K]`, `[B, K]` of 0 and 1."""
    return weighted(jnp.mean((logits > 0) == (targets > 0.5), axis=-1), weights)


def exact_match(logits: Array, targets: Array, weights: Array) -> Pair:
    """Returns how many rows have all their labels right: `[B, K]`, `[B, K]` of 0 and 1."""
    return weighted(jnp.all((logits > 0) == (targets > 0.5), axis=-1), weights)


def mean_absolute_error(values: Array, targets: Array, weights: Array) -> Pair:
    """Returns the absolute error, averaged over the outputs and summed over the rows: `[B, K]`, `[B, K]`."""
    return weighted(jnp.mean(jnp.abs(values - targets), axis=-1), weights)


def mean_squared_error(values: Array, targets: Array, weights: Array) -> Pair:
    """Returns the squared error, averaged over the outputs and summed over the rows: `[B, K]`, `[B, K]`."""
    return weighted(jnp.mean(jnp.square(values - targets), axis=-1), weights)
