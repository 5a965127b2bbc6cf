"""VGG16, into which published weights fit."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.encoders.image import project, standardise
from mmtl_jax.encoders.resnet import IMAGENET_DEVIATION, IMAGENET_MEAN, PROJECTION, normalise
from mmtl_jax.nn import CheckedModule, conv_kernel

STAGE_SIZES = (2, 2, 3, 3, 3)
STAGE_WIDTHS = (64, 128, 256, 512, 512)


class VGG16(CheckedModule):
    """Stages of 3x3 convolutions, each followed by 2x2 max pooling (Simonyan and Zisserman 2014, 1409.1556, table 1 D).

    Pooling leaves out an odd last row and column. The three dense layers on top are not part of it.

    Attributes:
      width: feature size D; None hands on the pooled channels of the last map as they are.
      stage_sizes: convolutions per stage.
      stage_widths: channels per stage.
      norm: None as published first; 'batch', 'frozen' or 'group' after each convolution, see `ResNet`.
      pooling: 'mean' or 'mean_max' over space gives one token, 'none' a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
      mean: of the pixels of each channel, subtracted; that of ImageNet by default.
      deviation: of the pixels of each channel, divided by.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int | None
    stage_sizes: tuple[int, ...] = STAGE_SIZES
    stage_widths: tuple[int, ...] = STAGE_WIDTHS
    norm: str | None = None
    pooling: str = 'mean'
    dropout_rate: float = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_DEVIATION
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage: a half to a 32nd of the image's sides, rounded down.

        Raises:
          ValueError: an image too small to be halved so often, or a width too few.
        """
        if len(self.stage_widths) != len(self.stage_sizes):
            raise ValueError(
                f'VGG16: {len(self.stage_widths)} stage_widths for {len(self.stage_sizes)} stage_sizes; give one width '
                'per stage.'
            )
        smallest = 2 ** len(self.stage_sizes)
        if min(images.shape[1:3]) < smallest:
            raise ValueError(f'VGG16: images must be {smallest} pixels high and wide at least, got {images.shape}.')
        x = standardise(images, self.mean, self.deviation)
        maps = []
        for stage, (layers, channels) in enumerate(zip(self.stage_sizes, self.stage_widths, strict=True), start=1):
            for i in range(1, layers + 1):
                name = f'stage{stage}_conv{i}'
                x = nn.Conv(channels, (3, 3), kernel_init=he_kernel, dtype=self.dtype, name=name)(x)
                if self.norm is not None:
                    x = normalise(x, self.norm, train=train, dtype=self.dtype, name=f'stage{stage}_norm{i}')
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
            maps.append(x)
        return project(self, tuple(maps), train=train, names=PROJECTION)


def he_kernel(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Returns normal values of variance 2 / fan_in (1502.01852, eq. 10), for layers without a norm between them."""
    return math.sqrt(2) * conv_kernel(key, shape, dtype)
