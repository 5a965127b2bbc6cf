"""Pre-norm transformer blocks."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.attention import Attention, SelfAttention
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
      dtype: of the arithmetic.
    """

    num_heads: int = 4
    rotary: bool = False
    expansion: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]` and `mask` `[B, N]`."""
        tokens = fill_masked(tokens, mask)
        attention = SelfAttention(self.num_heads, self.dropout_rate, self.rotary, self.dtype)
        attended = attention(nn.LayerNorm(dtype=self.dtype)(tokens), mask, train=train)
        tokens = tokens + channel_dropout(self.dropout_rate, train=train)(attended)
        feed_forward = FeedForward(self.expansion, self.dropout_rate, self.dtype)
        return tokens + feed_forward(nn.LayerNorm(dtype=self.dtype)(tokens), train=train)


class AttentionBlock(nn.Module):
    """x + attention(LN(x), LN(context)), then x + feed-forward(LN(x)), with the weights of the attention (2002.04745).

    Attributes:
      num_heads: number of attention heads.
      expansion: hidden width of the feed-forward layer over the input's.
      dropout_rate: dropout on attention weights and on both branches.
      dtype: of the arithmetic.
    """

    num_heads: int = 4
    expansion: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, tokens: Array, context_mask: Array, context: Array | None = None, *, train: bool
    ) -> tuple[Array, Array]:
        """Returns `[B, N, D]` and the weights `[B, num_heads, N, K]`.

        Args:
          tokens: `[B, N, D]`; what stands in masked positions must be finite.
          context_mask: `[B, K]`, which tokens of the context are real.
          context: `[B, K, C]`; None for self-attention, where `context_mask` is the mask of `tokens`.
          train: whether dropout acts.
        """
        queries = nn.LayerNorm(dtype=self.dtype, name='norm')(tokens)
        if context is None:
            context = queries
        else:
            context = nn.LayerNorm(dtype=self.dtype, name='context_norm')(fill_masked(context, context_mask))
        attention = Attention(self.num_heads, self.dropout_rate, self.dtype, name='attention')
        attended, weights = attention(queries, context, context_mask, train=train)
        tokens = tokens + channel_dropout(self.dropout_rate, train=train)(attended)
        hidden = nn.LayerNorm(dtype=self.dtype, name='feed_forward_norm')(tokens)
        feed_forward = FeedForward(self.expansion, self.dropout_rate, self.dtype, name='feed_forward')
        return tokens + feed_forward(hidden, train=train), weights
