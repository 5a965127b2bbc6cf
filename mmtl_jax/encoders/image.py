"""Image encoders: `[B, H, W, 3]` in [0, 1] to Features with spatial maps."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule, conv_kernel, max_over

NUM_STAGES = 4
SMALLEST_STAGE = 8
POOLINGS = {'mean': (jnp.mean,), 'mean_max': (jnp.mean, max_over)}


class ImageCNN(CheckedModule):
    """A plain convolutional network: per stage a 3x3 convolution, GroupNorm, ReLU and 2x2 max pooling.

    Attributes:
      width: feature size D.
      stage_widths: channels per stage; by default four stages that double up to `width`, as (16, 32, 64, 128) for 128.
      patch: side of the squares of pixels that are folded into channels first (space to depth). On CPU 2 makes the
        step three times as fast as 1 for 64 x 64 pixels.
      pooling: 'mean' or 'mean_max' over space gives one token, 'none' a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    stage_widths: tuple[int, ...] | None = None
    patch: int = 2
    pooling: str = 'mean_max'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage, each half the size of the one before."""
        x = fold(standardise(images), self.patch)
        maps = []
        for channels in self.stage_widths or doubling_widths(self.width):
            x = conv(channels, dtype=self.dtype)(x)
            x = max_pool(nn.relu(group_norm(channels, dtype=self.dtype)(x)))
            maps.append(x)
        return project(self, tuple(maps), train=train)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, 1512.03385), with GroupNorm instead of BatchNorm.

    Attributes:
      channels: of both convolutions.
      stride: of the first convolution.
      dtype: of the arithmetic.
    """

    channels: int
    stride: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[B, H / stride, W / stride, channels]`."""
        norm = functools.partial(group_norm, self.channels, dtype=self.dtype)
        branch = conv(self.channels, stride=self.stride, dtype=self.dtype)(x)
        branch = nn.relu(norm()(branch))
        branch = conv(self.channels, dtype=self.dtype)(branch)
        # A small last scale makes the block start near its shortcut (1706.02677, section 5.1; zero there).
        branch = norm(scale_init=nn.initializers.constant(0.2))(branch)
        if x.shape != branch.shape:
            x = norm()(conv(self.channels, size=1, stride=self.stride, dtype=self.dtype)(x))
        return nn.relu(x + branch)


class ImageResNet(CheckedModule):
    """A small residual network for small images: a 3x3 stem, then stages of basic blocks, each stage halving the map.

    Attributes:
      width: feature size D.
      stage_sizes: blocks per stage.
      stage_widths: channels per stage; by default they double up to `width`.
      patch: side of the squares of pixels that are folded into channels first (space to depth). On CPU 2 makes the
        step three times as fast as 1 for 64 x 64 pixels.
      pooling: 'mean' or 'mean_max' over space gives one token, 'none' a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    stage_sizes: tuple[int, ...] = (1, 1, 1, 1)
    stage_widths: tuple[int, ...] | None = None
    patch: int = 2
    pooling: str = 'mean_max'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage, each half the size of the one before."""
        widths = self.stage_widths or doubling_widths(self.width, len(self.stage_sizes))
        if len(widths) != len(self.stage_sizes):
            raise ValueError(
                f'ImageResNet: {len(widths)} stage_widths {tuple(widths)} for {len(self.stage_sizes)} stage_sizes '
                f'{tuple(self.stage_sizes)}; give one width per stage.'
            )
        x = conv(widths[0], dtype=self.dtype)(fold(standardise(images), self.patch))
        x = nn.relu(group_norm(widths[0], dtype=self.dtype)(x))
        maps = []
        for blocks, channels in zip(self.stage_sizes, widths, strict=True):
            for block in range(blocks):
                x = BasicBlock(channels, stride=2 if block == 0 else 1, dtype=self.dtype)(x)
            maps.append(x)
        return project(self, tuple(maps), train=train)


def project(
    encoder: nn.Module,
    maps: tuple[Array, ...],
    *,
    train: bool,
    names: tuple[str | None, str | None] = (None, None),
    pooling: str | None = None,
) -> Features:
    """Returns the last map as tokens of the encoder's width, in float32; called inside the encoder's compact method.

    Args:
      encoder: has the fields `width`, `pooling` and `dropout_rate`. Where the width is None, the tokens are the last
        map's channels, pooled and no more.
      maps: spatial maps, finest first.
      train: whether dropout acts.
      names: of the dense layer and of the LayerNorm after it; linen chooses by default.
      pooling: in place of the encoder's.

    Raises:
      ValueError: an unknown pooling.
    """
    choices, pooling = (*POOLINGS, 'none'), pooling or encoder.pooling
    if pooling not in choices:
        raise ValueError(f'{type(encoder).__name__}: pooling must be one of {choices}, got {pooling!r}.')
    maps = tuple(level.astype(jnp.float32) for level in maps)
    batch, height, width, channels = maps[-1].shape
    tokens = maps[-1].reshape(batch, height * width, channels)
    if pooling != 'none':
        tokens = jnp.concatenate([reduce(tokens, 1) for reduce in POOLINGS[pooling]], -1)[:, None]
    if encoder.width is not None:
        tokens = nn.Dropout(encoder.dropout_rate, deterministic=not train)(tokens)
        tokens = nn.LayerNorm(name=names[1])(nn.Dense(encoder.width, name=names[0])(tokens))
    return Features(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool), maps=maps)


def standardise(images: Array, mean: tuple[float, ...] = (0.5,), deviation: tuple[float, ...] = (0.5,)) -> Array:
    """Returns `(images - mean) / deviation` as float32; by default in [-1, 1].

    Args:
      images: `[B, H, W, C]` in [0, 1].
      mean: one value, or one per channel.
      deviation: the same.

    Raises:
      ValueError: the input is not `[B, H, W, C]` of floats.
    """
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f'images must be floats [B, H, W, C] in [0, 1], got {images.dtype} {images.shape}; divide bytes by 255.'
        )
    mean, deviation = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (mean, deviation))
    return (images.astype(jnp.float32) - mean) / deviation


def fold(images: Array, patch: int) -> Array:
    """Returns `[B, ceil(H / patch), ceil(W / patch), patch * patch * C]`; the last rows and columns repeat to fill."""
    batch, height, width, channels = images.shape
    images = jnp.pad(images, ((0, 0), (0, -height % patch), (0, -width % patch), (0, 0)), mode='edge')
    rows, columns = -(-height // patch), -(-width // patch)
    images = images.reshape(batch, rows, patch, columns, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(batch, rows, columns, patch * patch * channels)


def doubling_widths(width: int, stages: int = NUM_STAGES) -> tuple[int, ...]:
    """Returns channels per stage that double up to `width`."""
    return tuple(max(SMALLEST_STAGE, width >> (stages - 1 - stage)) for stage in range(stages))


def conv(channels: int, size: int = 3, stride: int = 1, **options) -> nn.Conv:
    """Returns a `size` x `size` convolution; a normalisation follows it, so it has no bias."""
    if size == 1:
        options['conv_general_dilated'] = pointwise
    return nn.Conv(channels, (size, size), (stride, stride), use_bias=False, kernel_init=conv_kernel, **options)


def pointwise(x: Array, kernel: Array, strides: tuple[int, int], padding: Any, **unused: Any) -> Array:
    """Returns a 1x1 convolution of `[B, H, W, C]` as one matrix product, in place of `jax.lax.conv_general_dilated`.

    A step of a ResNet-50 takes five sixths of the time on CPU (`benchmarks/vision.py`: 467 ms against 560).
    """
    x = x[:, :: strides[0], :: strides[1]]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)


def group_norm(channels: int, **options) -> nn.GroupNorm:
    """Returns a GroupNorm of at most eight groups, as many as divide the channels."""
    return nn.GroupNorm(num_groups=math.gcd(channels, 8), **options)


def max_pool(x: Array) -> Array:
    """Returns the maximum over 2x2 cells; an odd last row or column pools with itself.

    Reshaping and reducing has a gradient several times faster on CPU than that of `nn.max_pool`.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode='edge')
    x = x.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
    return max_over(x, (2, 4))
