"""EfficientNet-lite0: a small network of depthwise convolutions, into which published weights fit."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from mmtl_jax.core.types import Array, Features
from mmtl_jax.encoders.image import conv, project, standardise
from mmtl_jax.encoders.resnet import PROJECTION, normalise
from mmtl_jax.nn import CheckedModule, conv_kernel

# Per stage: blocks, side of the depthwise kernel, stride of the first block, expansion, channels.
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# As the published weights were trained.
STATISTICS = {'momentum': 0.99, 'epsilon': 1e-3}


class EfficientNetLite0(CheckedModule):
    """EfficientNet-B0 (Tan and Le 2019, 1905.11946, table 1) without squeeze-and-excitation, with ReLU6 for swish.

    As in TensorFlow, where the published weights come from, convolutions pad such that a side is divided by the stride
    and rounded up, with the odd pixel of padding at the end.

    Attributes:
      width: feature size D; None hands on the pooled 1280 channels of the last map as they are.
      stages: per stage the number of blocks, the side of the depthwise kernel, the stride of the first block, the
        expansion and the channels.
      stem_width: channels of the first convolution.
      head_width: channels of the last convolution.
      norm: 'batch', 'frozen' or 'group'; see `ResNet`.
      pooling: 'mean' or 'mean_max' over space gives one token, 'none' a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
      mean: of the pixels of each channel, subtracted.
      deviation: of the pixels of each channel, divided by.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int | None
    stages: tuple[tuple[int, int, int, int, int], ...] = LITE0
    stem_width: int = 32
    head_width: int = 1280
    norm: str = 'batch'
    pooling: str = 'mean'
    dropout_rate: float = 0.0
    mean: tuple[float, ...] = (127 / 255,)
    deviation: tuple[float, ...] = (128 / 255,)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with the maps before each halving, and the last: a half to a 32nd of the image's sides."""
        x = standardise(images, self.mean, self.deviation)
        x = conv(self.stem_width, 3, 2, dtype=self.dtype, name='stem_conv')(x)
        x = nn.relu6(normalise(x, self.norm, train=train, dtype=self.dtype, name='stem_norm', **STATISTICS))
        maps, number = [], 0
        for blocks, size, first_stride, expansion, channels in self.stages:
            if first_stride > 1:
                maps.append(x)
            for i in range(blocks):
                number += 1
                stride = first_stride if i == 0 else 1
                options = {'norm': self.norm, 'dtype': self.dtype, 'name': f'block{number}'}
                x = InvertedResidual(channels, size, stride, expansion, **options)(x, train=train)
        x = conv(self.head_width, 1, dtype=self.dtype, name='head_conv')(x)
        x = nn.relu6(normalise(x, self.norm, train=train, dtype=self.dtype, name='head_norm', **STATISTICS))
        return project(self, (*maps, x), train=train, names=PROJECTION)


class InvertedResidual(nn.Module):
    """Widens, convolves each channel on its own, narrows without activation (Sandler et al. 2018, 1801.04381).

    Attributes:
      channels: of the output.
      size: side of the depthwise kernel.
      stride: of the depthwise convolution.
      expansion: channels in between over those of the input; 1 leaves out the widening.
      norm: see `ResNet`.
      dtype: of the arithmetic.
    """

    channels: int
    size: int
    stride: int
    expansion: int
    norm: str
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), channels]`; the input is added where the shape allows."""
        options = {'train': train, 'dtype': self.dtype, **STATISTICS}
        branch = x
        if self.expansion > 1:
            branch = conv(x.shape[-1] * self.expansion, 1, dtype=self.dtype, name='expand_conv')(x)
            branch = nn.relu6(normalise(branch, self.norm, name='expand_norm', **options))
        branch = Depthwise(self.size, self.stride, self.dtype, name='depthwise_conv')(branch)
        branch = nn.relu6(normalise(branch, self.norm, name='depthwise_norm', **options))
        branch = conv(self.channels, 1, dtype=self.dtype, name='project_conv')(branch)
        branch = normalise(branch, self.norm, name='project_norm', **options)
        return x + branch if self.stride == 1 and x.shape == branch.shape else branch


class Depthwise(nn.Module):
    """Convolves every channel with a kernel of its own; pads as `nn.Conv` does with 'SAME', and has its parameters.

    Attributes:
      size: side of the kernel.
      stride: of both sides.
      dtype: of the arithmetic.
    """

    size: int
    stride: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[B, ceil(H / stride), ceil(W / stride), C]`."""
        kernel = self.param('kernel', conv_kernel, (self.size, self.size, 1, x.shape[-1]))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        ends, padding = [], [(0, 0)]
        for side in x.shape[1:3]:
            # From the first pixel that a kernel's corner sees to the last.
            ends.append((-(-side // self.stride) - 1) * self.stride + 1)
            missing = max(ends[-1] + self.size - 1 - side, 0)
            padding.append((missing // 2, missing - missing // 2))
        x = jnp.pad(x, (*padding, (0, 0)))
        # Shift, multiply and add: XLA's grouped convolution is 10 to 20 times slower on CPU (211 ms against 11 ms for
        # 8 x 56 x 56 x 144 and a 3 x 3 kernel).
        return sum(
            x[:, i : i + ends[0] : self.stride, j : j + ends[1] : self.stride] * kernel[None, i : i + 1, j : j + 1, 0]
            for i in range(self.size)
            for j in range(self.size)
        )
