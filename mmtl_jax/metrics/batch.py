"""Metrics of a batch: pure functions -> {name: (sum, count)}, to be added up over batches and divided once at the end.

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


def classification(logits: Array, labels: Array, weights: Array, *, top_k: int | None = None) -> dict[str, Pair]:
    """Returns `accuracy` and, with `top_k`, `top{k}`: how often the label is the highest, among the k highest.

    Args:
      logits: `[B, C]`; of equal ones the lower class goes first.
      labels: `[B]` int.
      weights: `[B]`.
      top_k: how many of the highest; None to leave it out.
    """
    pairs = {'accuracy': weighted(jnp.argmax(logits, axis=-1) == labels, weights)}
    if top_k is not None:
        _, best = jax.lax.top_k(logits, top_k)
        pairs[f'top{top_k}'] = weighted(jnp.any(best == labels[:, None], axis=-1), weights)
    return pairs


def multilabel(logits: Array, targets: Array, weights: Array) -> dict[str, Pair]:
    """Returns `accuracy`, the share of labels that are right, and `exact_match`, the share of rows all right.

    Args:
      logits: `[B, K]`; above 0 the label is on.
      targets: `[B, K]` of 0 and 1.
      weights: `[B]`.
    """
    right = (logits > 0) == (targets > 0.5)
    return {
        'accuracy': weighted(jnp.mean(right, axis=-1), weights),
        'exact_match': weighted(jnp.all(right, axis=-1), weights),
    }


def regression(values: Array, targets: Array, weights: Array) -> dict[str, Pair]:
    """Returns `mae` and `mse`, the absolute and the squared error, averaged over the outputs: `[B, K]`, `[B, K]`."""
    error = values - targets
    return {
        'mae': weighted(jnp.mean(jnp.abs(error), axis=-1), weights),
        'mse': weighted(jnp.mean(jnp.square(error), axis=-1), weights),
    }
