"""Fully connected layers."""

import flax.linen as nn

from mmtl_jax.core.types import Array


class MLP(nn.Module):
    """`depth` layers of Dense, GELU and dropout on the last axis.

    Attributes:
      width: size of every layer.
      depth: number of layers; 0 hands the input on.
      dropout_rate: dropout after each layer.
    """

    width: int
    depth: int = 1
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[..., width]` for `x` `[..., D]`."""
        for _ in range(self.depth):
            x = nn.gelu(nn.Dense(self.width)(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x


class FeedForward(nn.Module):
    """The transformer's feed-forward layer: widen, activate, return to the input's width.

    Attributes:
      expansion: hidden width over input width.
      dropout_rate: dropout after the activation and after the second layer.
    """

    expansion: int = 4
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns the same shape as `x` `[..., D]`."""
        width = x.shape[-1]
        x = nn.swish(nn.Dense(self.expansion * width)(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = nn.Dense(width)(x)
        return nn.Dropout(self.dropout_rate, deterministic=not train)(x)
