"""Masked multi-head attention."""

import functools

import flax.linen as nn

from mmtl_jax.core.types import Array
from mmtl_jax.nn.masking import fill_masked
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
    """

    num_heads: int = 4
    dropout_rate: float = 0.0
    rotary: bool = False

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]` and `mask` `[B, N]`."""
        width = tokens.shape[-1]
        head_width = -(-width // (2 * self.num_heads)) * 2
        return nn.MultiHeadDotProductAttention(
            num_heads=self.num_heads,
            qkv_features=head_width * self.num_heads,
            out_features=width,
            dropout_rate=self.dropout_rate,
            deterministic=not train,
            attention_fn=rotary_attention if self.rotary else nn.dot_product_attention,
            name='attention',
        )(fill_masked(tokens, mask), mask=mask[:, None, None, :])
