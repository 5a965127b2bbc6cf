"""Residual networks of the published sizes, into which published weights fit."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.encoders.image import conv, project, standardise
from mmtl_jax.nn import CheckedModule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
FIRST_BOTTLENECK = 50
EXPANSION = 4
NORMS = ('batch', 'frozen', 'group')
PROJECTION = ('projection', 'projection_norm')


class ResNet(CheckedModule):
    """A deep residual network (He et al. 2015, 1512.03385, table 1): a 7x7 stem, max pooling and four stages.

    Depths 18 and 34 have blocks of two 3x3 convolutions, 50 and 101 bottlenecks of three. A bottleneck strides in its
    3x3 convolution, as published weights expect ("v1.5"), not in the first one as in the paper. Convolutions and
    pooling pad both sides alike, whatever the size of the image.

    BatchNorm averages over the whole batch, on however many devices it lies, rows without an image among them: the
    model hands those on as zeros. Where many rows lack the image, take `'frozen'` or `'group'`.

    Attributes:
      width: feature size D; None hands on the pooled channels of the last map as they are.
      depth: 18, 34, 50 or 101.
      stage_sizes: blocks per stage, in place of those of the depth.
      base_width: channels of the stem and of the first stage's 3x3 convolutions; each further stage has twice as many.
      norm: 'batch' keeps running statistics in the collection `batch_stats` and evaluates with them; 'frozen' also
        trains with them and leaves them as they are, the rule for pretrained statistics and small batches; 'group' is
        GroupNorm (1803.08494) and keeps none.
      pooling: 'mean' or 'mean_max' over space gives one token, 'none' a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
      mean: of the pixels of each channel, subtracted; that of ImageNet by default.
      deviation: of the pixels of each channel, divided by.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int | None
    depth: int = 50
    stage_sizes: tuple[int, ...] | None = None
    base_width: int = 64
    norm: str = 'batch'
    pooling: str = 'mean'
    dropout_rate: float = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_DEVIATION
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage: a 4th, 8th, 16th and 32nd of the image's sides, rounded up.

        Raises:
          ValueError: an unknown depth, norm or pooling.
        """
        if self.depth not in STAGE_SIZES:
            raise ValueError(f'ResNet: depth must be one of {tuple(STAGE_SIZES)}, got {self.depth}.')
        block = Bottleneck if self.depth >= FIRST_BOTTLENECK else Basic
        x = standardise(images, self.mean, self.deviation)
        x = conv(self.base_width, 7, 2, padding=3, dtype=self.dtype, name='stem_conv')(x)
        x = nn.relu(normalise(x, self.norm, train=train, dtype=self.dtype, name='stem_norm'))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        maps = []
        for stage, blocks in enumerate(self.stage_sizes or STAGE_SIZES[self.depth]):
            for i in range(blocks):
                stride = 2 if i == 0 and stage > 0 else 1
                name = f'stage{stage + 1}_block{i + 1}'
                x = block(self.base_width << stage, stride, self.norm, self.dtype, name=name)(x, train=train)
            maps.append(x)
        return project(self, tuple(maps), train=train, names=PROJECTION)


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Attributes:
      channels: of both convolutions.
      stride: of the first convolution.
      norm: see `ResNet`.
      dtype: of the arithmetic.
    """

    channels: int
    stride: int
    norm: str
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[B, H / stride, W / stride, channels]`."""
        branch = conv(self.channels, 3, self.stride, padding=1, dtype=self.dtype, name='conv1')(x)
        branch = nn.relu(normalise(branch, self.norm, train=train, dtype=self.dtype, name='norm1'))
        branch = conv(self.channels, 3, padding=1, dtype=self.dtype, name='conv2')(branch)
        branch = normalise(branch, self.norm, train=train, dtype=self.dtype, name='norm2')
        return nn.relu(branch + shortcut(x, self.channels, self.stride, self.norm, train=train, dtype=self.dtype))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to four times the channels, and a shortcut.

    Attributes:
      channels: of the first two convolutions.
      stride: of the 3x3 convolution.
      norm: see `ResNet`.
      dtype: of the arithmetic.
    """

    channels: int
    stride: int
    norm: str
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[B, H / stride, W / stride, 4 * channels]`."""
        branch = conv(self.channels, 1, dtype=self.dtype, name='conv1')(x)
        branch = nn.relu(normalise(branch, self.norm, train=train, dtype=self.dtype, name='norm1'))
        branch = conv(self.channels, 3, self.stride, padding=1, dtype=self.dtype, name='conv2')(branch)
        branch = nn.relu(normalise(branch, self.norm, train=train, dtype=self.dtype, name='norm2'))
        branch = conv(EXPANSION * self.channels, 1, dtype=self.dtype, name='conv3')(branch)
        branch = normalise(branch, self.norm, train=train, dtype=self.dtype, name='norm3')
        channels = EXPANSION * self.channels
        return nn.relu(branch + shortcut(x, channels, self.stride, self.norm, train=train, dtype=self.dtype))


def shortcut(x: Array, channels: int, stride: int, norm: str, *, train: bool, dtype: jnp.dtype | None = None) -> Array:
    """Returns `x`, through a 1x1 convolution where its shape changes; called inside a block's compact method."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = conv(channels, 1, stride, dtype=dtype, name='shortcut_conv')(x)
    return normalise(x, norm, train=train, dtype=dtype, name='shortcut_norm')


def normalise(
    x: Array,
    norm: str,
    *,
    train: bool,
    name: str,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    dtype: jnp.dtype | None = None,
) -> Array:
    """Returns `x` `[..., C]` normalised; called inside a compact method, where the layer takes the `name`.

    Args:
      x: `[B, H, W, C]`.
      norm: see `ResNet`.
      train: whether BatchNorm takes the batch's statistics, and keeps them.
      name: of the layer.
      momentum: share of the running statistics that stays in a step; PyTorch counts the share that goes. The variance
        that is kept is that of the batch divided by its size; PyTorch divides by one less.
      epsilon: added to the variance.
      dtype: of the result; mean and variance are taken in float32.

    Raises:
      ValueError: an unknown norm.
    """
    if norm not in NORMS:
        raise ValueError(f'norm must be one of {NORMS}, got {norm!r}.')
    # The fast variance, E[x^2] - E[x]^2, loses the digits that the mean has in common with the values.
    if norm == 'group':
        groups = math.gcd(x.shape[-1], 32)
        return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)(x)
    running = norm == 'frozen' or not train
    layer = nn.BatchNorm(momentum=momentum, epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)
    return layer(x, use_running_average=running)
