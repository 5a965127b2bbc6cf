"""A class for every pixel."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.pyramid import CellReadout, maps_of
from mmtl_jax.nn import CheckedModule


class Segmentation(CheckedModule):
    """A pyramid decoder: `Features` with maps -> logits `[B, h, w, num_classes]`.

    Attributes:
      num_classes: number of classes, background included.
      size: height and width of the mask, or one number for both, to which the logits are resized; None for those of
        the finest map that is read.
      width: channels of the pyramid.
      level: the finest map that is read, 0 for the finest of all.
      dropout_rate: before the last layer, of whole channels.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    num_classes: int
    size: int | tuple[int, int] | None = None
    width: int = 64
    level: int = 0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Array:
        """Returns the logits `[B, h, w, num_classes]`.

        Raises:
          ValueError: features without maps, or of several modalities.
        """
        maps = maps_of(features, 'Segmentation', self.level)
        return CellReadout(self.num_classes, self.width, self.size, self.dropout_rate, self.dtype)(maps, train=train)
