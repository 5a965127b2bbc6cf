"""Real numbers per row."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.readout import Readout, pooled
from mmtl_jax.nn import CheckedModule


class Regression(CheckedModule):
    """Mean of the real tokens, then a readout: `Features` -> values `[B, num_outputs]`.

    Of several modalities it reads the means side by side.

    Attributes:
      num_outputs: how many numbers a row has.
      hidden: sizes of hidden layers; none gives a linear readout.
      dropout_rate: applied to the input of every layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
      distribution: the predictions are the means of one per number; fusions of decisions join them by it.
    """

    num_outputs: int = 1
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None
    distribution = 'normal'

    @nn.compact
    def __call__(self, features: Features | Mapping[str, Features], *, train: bool) -> Array:
        """Returns the values `[B, num_outputs]`."""
        return Readout(self.num_outputs, self.hidden, self.dropout_rate, self.dtype)(pooled(features), train=train)
