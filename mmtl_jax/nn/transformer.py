"""The pre-norm transformer block."""

import flax.linen as nn

from mmtl_jax.core.types import Array
from mmtl_jax.nn.attention import SelfAttention
from mmtl_jax.nn.dropout import channel_dropout
from mmtl_jax.nn.masking import fill_masked
from mmtl_jax.nn.mlp import FeedForward


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added to its input (2002.04745).

    Attributes:
      num_heads: number of attention heads.
      rotary: whether attention knows the relative positions of the tokens.
      expansion: hidden width of the feed-forward layer over the input's.
      dropout_rate: dropout on attention weights and on both branches.
    """

    num_heads: int = 4
    rotary: bool = False
    expansion: int = 4
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]` and `mask` `[B, N]`."""
        tokens = fill_masked(tokens, mask)
        attention = SelfAttention(self.num_heads, self.dropout_rate, self.rotary)
        attended = attention(nn.LayerNorm()(tokens), mask, train=train)
        tokens = tokens + channel_dropout(self.dropout_rate, train=train)(attended)
        return tokens + FeedForward(self.expansion, self.dropout_rate)(nn.LayerNorm()(tokens), train=train)
