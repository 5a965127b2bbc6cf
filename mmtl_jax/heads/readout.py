"""What the heads share: one vector per row, and the layers from a vector to the output."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import MLP, at_least_float32, masked_mean


def pooled(features: Features | Mapping[str, Features]) -> Array:
    """Returns one vector per row: the mean of the real tokens, `[B, D]`.

    Of several modalities the means stand side by side, `[B, sum of the D]`, in the alphabetical order of their names;
    a missing modality is zeros.
    """
    if isinstance(features, Mapping):
        return jnp.concatenate([pooled(features[modality]) for modality in sorted(features)], axis=-1)
    return masked_mean(features.tokens, features.mask)


class Readout(nn.Module):
    """Hidden layers with GELU and dropout, then a linear layer: `[..., D]` -> `[..., width]`.

    Attributes:
      width: size of the output.
      hidden: sizes of the hidden layers; none gives a linear readout.
      dropout_rate: applied to the input of every layer.
      dtype: of the arithmetic; the result has at least 32 bits.
    """

    width: int
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns `[..., width]`."""
        outputs = nn.Dropout(self.dropout_rate, deterministic=not train)(inputs)
        for size in self.hidden:
            outputs = MLP(size, depth=1, dropout_rate=self.dropout_rate, dtype=self.dtype)(outputs, train=train)
        return at_least_float32(nn.Dense(self.width, dtype=self.dtype)(outputs))
