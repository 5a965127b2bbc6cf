"""Fully connected layers."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.dropout import channel_dropout


class MLP(nn.Module):
    """`depth` layers of Dense, GELU and dropout on the last axis.

    Attributes:
      width: size of every layer.
      depth: number of layers; 0 hands the input on.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic.
    """

    width: int
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[..., width]` for `x` `[..., D]`."""
        for _ in range(self.depth):
            x = nn.gelu(nn.Dense(self.width, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x


class FeedForward(nn.Module):
    """The transformer's feed-forward layer: widen, swish, return to the input's width; dropout is by channel.

    Attributes:
      expansion: hidden width over input width.
      dropout_rate: dropout after the activation and after the second layer.
      dtype: of the arithmetic.
    """

    expansion: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns the same shape as `x` `[B, N, D]`."""
        width = x.shape[-1]
        x = nn.swish(nn.Dense(self.expansion * width, dtype=self.dtype)(x))
        x = nn.Dense(width, dtype=self.dtype)(channel_dropout(self.dropout_rate, train=train)(x))
        return channel_dropout(self.dropout_rate, train=train)(x)
