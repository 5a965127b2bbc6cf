"""The layer of the transformers into which published weights fit, BERT and ViT; its names are those of their tables."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array

ACTIVATIONS = {
    'gelu': functools.partial(nn.gelu, approximate=False),
    'gelu_new': functools.partial(nn.gelu, approximate=True),
    'relu': nn.relu,
}


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward layer, each added to its input; dropout is per element, as in the papers.

    Attributes:
      num_heads: attention heads.
      mlp_width: hidden size of the feed-forward layer.
      epsilon: what LayerNorm adds to the variance.
      norm_first: LayerNorm on the input of both branches (ViT), or on the sums (BERT).
      activation: a key of `ACTIVATIONS`.
      dropout_rate: dropout on the attention weights and both branches.
      dtype: of the arithmetic.
    """

    num_heads: int
    mlp_width: int
    epsilon: float
    norm_first: bool
    activation: str = 'gelu'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]`; where `mask` `[B, N]` is False, nobody attends."""
        width = tokens.shape[-1]
        dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.num_heads,
            qkv_features=-(-width // self.num_heads) * self.num_heads,
            out_features=width,
            dropout_rate=self.dropout_rate,
            deterministic=not train,
            dtype=self.dtype,
            name='attention',
        )
        mlp_in = nn.Dense(self.mlp_width, dtype=self.dtype, name='mlp_in')
        mlp_out = nn.Dense(width, dtype=self.dtype, name='mlp_out')
        attention_norm = layer_norm(self.epsilon, self.dtype, 'attention_norm')
        mlp_norm = layer_norm(self.epsilon, self.dtype, 'mlp_norm')

        def attend(x: Array) -> Array:
            return dropout(attention(x, mask=None if mask is None else mask[:, None, None, :]))

        def feed_forward(x: Array) -> Array:
            return dropout(mlp_out(ACTIVATIONS[self.activation](mlp_in(x))))

        if self.norm_first:
            tokens = tokens + attend(attention_norm(tokens))
            return tokens + feed_forward(mlp_norm(tokens))
        tokens = attention_norm(tokens + attend(tokens))
        return mlp_norm(tokens + feed_forward(tokens))


def layer_norm(epsilon: float, dtype: jnp.dtype | None, name: str) -> nn.LayerNorm:
    """Returns LayerNorm with the variance as the mean of squared deviations.

    The faster mean of squares minus squared mean loses digits that parity with the original needs.
    """
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
