"""Numbers for every pixel, such as depth or a surface normal."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.pyramid import CellReadout, maps_of
from mmtl_jax.nn import CheckedModule


class DenseRegression(CheckedModule):
    """A pyramid decoder: `Features` with maps -> `[B, h, w, num_outputs]`.

    Attributes:
      num_outputs: how many numbers a pixel has: 1 for depth, 3 for a normal.
      unit: scale the numbers of each pixel to a vector of length 1, as a normal is.
      size: height and width of the result, or one number for both; None for those of the finest map that is read.
      width: channels of the pyramid.
      level: the finest map that is read, 0 for the finest of all.
      dropout_rate: before the last layer, of whole channels.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    num_outputs: int = 1
    unit: bool = False
    size: int | tuple[int, int] | None = None
    width: int = 64
    level: int = 0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Array:
        """Returns `[B, h, w, num_outputs]`.

        Raises:
          ValueError: features without maps, or of several modalities.
        """
        maps = maps_of(features, 'DenseRegression', self.level)
        values = CellReadout(self.num_outputs, self.width, self.size, self.dropout_rate, self.dtype)(maps, train=train)
        if not self.unit:
            return values
        # A length of 0, as the zero maps of an absent picture give, keeps a finite gradient.
        return values * jax.lax.rsqrt(jnp.sum(jnp.square(values), axis=-1, keepdims=True) + 1e-12)
