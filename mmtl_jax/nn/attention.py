"""Masked multi-head attention."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.masking import fill_masked, masked_softmax
from mmtl_jax.nn.positions import rotate


# Linen hands an attention function only the options that stand in its signature; `wraps` shows it those of the
# original, the mask among them.
@functools.wraps(nn.dot_product_attention, assigned=())
def rotary_attention(query: Array, key: Array, value: Array, **options) -> Array:
    """Returns dot-product attention whose scores depend on the distance of two tokens; see `positions.rotate`."""
    return nn.dot_product_attention(rotate(query), rotate(key), value, **options)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the real tokens (Vaswani et al. 2017, 1706.03762).

    Attributes:
      num_heads: number of heads. The size of a head is `width / num_heads`, rounded up to an even number, so that any
        width works with any number of heads.
      dropout_rate: dropout on the attention weights.
      rotary: whether queries and keys carry their relative position (Su et al. 2021, 2104.09864).
      dtype: of the other arithmetic than the softmax, which is taken in float32.
    """

    num_heads: int = 4
    dropout_rate: float = 0.0
    rotary: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]` and `mask` `[B, N]`."""
        width = tokens.shape[-1]
        head_width = -(-width // (2 * self.num_heads)) * 2
        return nn.MultiHeadDotProductAttention(
            num_heads=self.num_heads,
            qkv_features=head_width * self.num_heads,
            out_features=width,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
            dropout_rate=self.dropout_rate,
            deterministic=not train,
            attention_fn=rotary_attention if self.rotary else nn.dot_product_attention,
            name='attention',
        )(fill_masked(tokens, mask), mask=mask[:, None, None, :])


class Attention(nn.Module):
    """Multi-head attention from queries to a context (Vaswani et al. 2017, 1706.03762, eq. 1), with its weights.

    softmax(Q Kᵀ / sqrt(d)) V for each head of size d = width / num_heads, rounded up. A row without any real token in
    its context gets zero. The softmax is taken in float32.

    Attributes:
      num_heads: number of heads.
      dropout_rate: dropout on the attention weights.
      dtype: of the other arithmetic.
    """

    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, queries: Array, context: Array, context_mask: Array, *, train: bool) -> tuple[Array, Array]:
        """Returns `[B, Q, D]` and the weights `[B, num_heads, Q, N]`, before dropout.

        Args:
          queries: `[B, Q, D]`.
          context: `[B, N, C]`.
          context_mask: `[B, N]` bool.
          train: whether dropout acts.
        """
        size = -(-queries.shape[-1] // self.num_heads)
        heads = functools.partial(nn.DenseGeneral, (self.num_heads, size), dtype=self.dtype)
        context = fill_masked(context, context_mask)
        query = heads(name='query')(queries) / math.sqrt(size)
        # No bias: it would add the same to every score of a query, which a softmax does not see.
        key = heads(use_bias=False, name='key')(context)
        value = heads(name='value')(context)
        scores = jnp.einsum('bqhd,bnhd->bhqn', query, key)
        weights = masked_softmax(scores.astype(jnp.float32), context_mask[:, None, None])
        dropped = nn.Dropout(self.dropout_rate, deterministic=not train)(weights).astype(value.dtype)
        attended = jnp.einsum('bhqn,bnhd->bqhd', dropped, value)
        output = nn.DenseGeneral(queries.shape[-1], axis=(-2, -1), dtype=self.dtype, name='out')(attended)
        return fill_masked(output, jnp.any(context_mask, axis=1)), weights
