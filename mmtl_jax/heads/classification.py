"""One class out of several per row."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.readout import Readout, pooled
from mmtl_jax.nn import CheckedModule


class Classification(CheckedModule):
    """Mean of the real tokens, then a readout: `Features` -> logits `[B, num_classes]`.

    Of several modalities it reads the means side by side.

    Attributes:
      num_classes: number of classes.
      hidden: sizes of hidden layers; none gives a linear classifier.
      dropout_rate: applied to the input of every layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
      distribution: the predictions are the logits of one; fusions of decisions join them by it.
    """

    num_classes: int
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None
    distribution = 'categorical'

    @nn.compact
    def __call__(self, features: Features | Mapping[str, Features], *, train: bool) -> Array:
        """Returns the logits `[B, num_classes]`."""
        return Readout(self.num_classes, self.hidden, self.dropout_rate, self.dtype)(pooled(features), train=train)
