"""Boxes around objects, without anchors."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.pyramid import ConvBlock, Pyramid, maps_of
from mmtl_jax.nn import CheckedModule, at_least_float32

# The share of cells with a centre at the start (focal loss, Lin et al. 2017, 1708.02002, section 4.1; as in CenterNet).
PRIOR = 0.1
# The distance of an edge at the start, as a share of the side of the picture.
DISTANCE = 0.15


class Detection(CheckedModule):
    """For every cell of the finest map: is it the centre of an object, of which class, and how far are the edges?

    Centres are a heat map (CenterNet, Zhou et al. 2019, 1904.07850), here one for all classes, so that an object of a
    class that is in doubt is found all the same; the classes are those of the object that is there, and a detection
    scores P(centre) P(class | centre) (Zhou et al. 2021, 2103.07461, equation 1). Boxes are the distances of the four
    edges from the middle of the cell (FCOS, Tian et al. 2019, 1904.01355, equation 1), here as shares of the sides of
    the picture, between 0 and 1 by a sigmoid in place of the exponential. There is one map for objects of all sizes.

    Attributes:
      num_classes: number of classes; there is no background among them.
      width: channels of the pyramid and of the branches.
      depth: 3x3 convolutions of each of the three branches.
      level: the finest map that is read, 0 for the finest of all.
      dropout_rate: after the pyramid, of whole channels.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    num_classes: int
    width: int = 64
    depth: int = 1
    level: int = 0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Array]:
        """Returns `centres` `[B, h, w]` and `classes` `[B, h, w, num_classes]`, logits, and `distances` `[B, h, w, 4]`.

        The distances are upwards, to the left, downwards and to the right.

        Raises:
          ValueError: features without maps, or of several modalities.
        """
        maps = maps_of(features, 'Detection', self.level)
        joint = Pyramid(self.width, self.dropout_rate, self.dtype)(maps, train=train)

        def branch(name: str, channels: int, start: float = 0.5) -> Array:
            x = joint
            for index in range(self.depth):
                x = ConvBlock(self.width, self.dtype, name=f'{name}_{index}')(x)
            bias = nn.initializers.constant(math.log(start / (1 - start)))
            # Small weights, so that training begins near the start (RetinaNet, section 4.1).
            kernel = nn.initializers.normal(0.01)
            last = nn.Dense(channels, kernel_init=kernel, bias_init=bias, dtype=self.dtype, name=name)
            return at_least_float32(last(x))

        return {
            'centres': branch('centres', 1, PRIOR)[..., 0],
            'classes': branch('classes', self.num_classes),
            'distances': nn.sigmoid(branch('distances', 4, DISTANCE)),
        }
