"""Masked arithmetic: what stands in masked positions reaches neither values nor gradients, NaN and infinity included.

Masking by multiplication would let NaN through (0 * NaN is NaN), so everything here selects with `where`.
"""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array


def fill_masked(values: Array, mask: Array, fill: float = 0) -> Array:
    """Returns `values` `[..., *rest]` with `fill` wherever `mask` `[...]` is False."""
    expanded = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return jnp.where(expanded, values, jnp.asarray(fill, values.dtype))


def masked_softmax(logits: Array, mask: Array) -> Array:
    """Returns the softmax over the real entries of the last axis; all zero for a row without any.

    Args:
      logits: `[..., N]`.
      mask: `[..., N]` bool.
    """
    lowest = jnp.finfo(logits.dtype).min
    weights = jax.nn.softmax(jnp.where(mask, logits, lowest), axis=-1)
    return jnp.where(mask, weights, 0)
