"""Any number of labels per row."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.readout import Readout, pooled
from mmtl_jax.nn import CheckedModule


class MultiLabel(CheckedModule):
    """Mean of the real tokens, then a readout: `Features` -> one logit per label `[B, num_labels]`.

    Of several modalities it reads the means side by side.

    Attributes:
      num_labels: number of labels, each on or off by itself.
      hidden: sizes of hidden layers; none gives a linear readout.
      dropout_rate: applied to the input of every layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
      distribution: the predictions are the logits of one per label; fusions of decisions join them by it.
    """

    num_labels: int
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None
    distribution = 'bernoulli'

    @nn.compact
    def __call__(self, features: Features | Mapping[str, Features], *, train: bool) -> Array:
        """Returns the logits `[B, num_labels]`."""
        return Readout(self.num_labels, self.hidden, self.dropout_rate, self.dtype)(pooled(features), train=train)
