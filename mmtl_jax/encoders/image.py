"""Image encoders: `[B, H, W, 3]` in [0, 1] to Features with spatial maps."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features

NUM_STAGES = 4
SMALLEST_STAGE = 8


class ImageCNN(nn.Module):
    """A plain convolutional network: per stage a 3x3 convolution, GroupNorm, ReLU and 2x2 max pooling.

    Attributes:
      width: feature size D.
      stage_widths: channels per stage; by default four stages that double up to `width`, as (16, 32, 64, 128) for 128.
      pooled: True gives one token, the mean over space; False gives a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
    """

    width: int
    stage_widths: tuple[int, ...] | None = None
    pooled: bool = True
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage, at 1/2, 1/4, ... of the resolution."""
        x = standardise(images)
        maps = []
        for channels in self.stage_widths or doubling_widths(self.width):
            x = nn.Conv(channels, (3, 3), use_bias=False)(x)
            x = max_pool(nn.relu(group_norm(channels)(x)))
            maps.append(x)
        return project(self, tuple(maps), train=train)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, 1512.03385), with GroupNorm instead of BatchNorm."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[B, H / stride, W / stride, channels]`."""
        strides = (self.stride, self.stride)
        branch = nn.Conv(self.channels, (3, 3), strides, use_bias=False)(x)
        branch = nn.relu(group_norm(self.channels)(branch))
        branch = nn.Conv(self.channels, (3, 3), use_bias=False)(branch)
        # A small last scale makes the block start near its shortcut (1706.02677, section 5.1; zero there).
        branch = group_norm(self.channels, scale_init=nn.initializers.constant(0.2))(branch)
        if x.shape != branch.shape:
            x = group_norm(self.channels)(nn.Conv(self.channels, (1, 1), strides, use_bias=False)(x))
        return nn.relu(x + branch)


class ImageResNet(nn.Module):
    """A small residual network for small images: a 3x3 stem, then stages of basic blocks, each stage halving the map.

    Attributes:
      width: feature size D.
      stage_sizes: blocks per stage.
      stage_widths: channels per stage; by default they double up to `width`.
      pooled: True gives one token, the mean over space; False gives a token per cell of the last map, row by row.
      dropout_rate: dropout before the last projection.
    """

    width: int
    stage_sizes: tuple[int, ...] = (1, 1, 1, 1)
    stage_widths: tuple[int, ...] | None = None
    pooled: bool = True
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with a map after each stage, at 1/2, 1/4, ... of the resolution."""
        widths = self.stage_widths or doubling_widths(self.width, len(self.stage_sizes))
        if len(widths) != len(self.stage_sizes):
            raise ValueError(
                f'ImageResNet: {len(widths)} stage_widths {tuple(widths)} for {len(self.stage_sizes)} stage_sizes '
                f'{tuple(self.stage_sizes)}; give one width per stage.'
            )
        x = nn.Conv(widths[0], (3, 3), use_bias=False)(standardise(images))
        x = nn.relu(group_norm(widths[0])(x))
        maps = []
        for blocks, channels in zip(self.stage_sizes, widths, strict=True):
            for block in range(blocks):
                x = BasicBlock(channels, stride=2 if block == 0 else 1)(x)
            maps.append(x)
        return project(self, tuple(maps), train=train)


def project(encoder: ImageCNN | ImageResNet, maps: tuple[Array, ...], *, train: bool) -> Features:
    """Returns the last map as tokens of the encoder's width; called inside the encoder's compact method."""
    batch, height, width, channels = maps[-1].shape
    tokens = maps[-1].reshape(batch, height * width, channels)
    if encoder.pooled:
        tokens = jnp.mean(tokens, axis=1, keepdims=True)
    tokens = nn.Dropout(encoder.dropout_rate, deterministic=not train)(tokens)
    tokens = nn.LayerNorm()(nn.Dense(encoder.width)(tokens))
    return Features(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool), maps=maps)


def standardise(images: Array) -> Array:
    """Returns `images` in [-1, 1] as float32.

    Raises:
      ValueError: the input is not `[B, H, W, C]` of floats.
    """
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f'images must be floats [B, H, W, C] in [0, 1], got {images.dtype} {images.shape}; divide bytes by 255.'
        )
    return (2 * images - 1).astype(jnp.float32)


def doubling_widths(width: int, stages: int = NUM_STAGES) -> tuple[int, ...]:
    """Returns channels per stage that double up to `width`."""
    return tuple(max(SMALLEST_STAGE, width >> (stages - 1 - stage)) for stage in range(stages))


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
    return jnp.max(x, axis=(2, 4))
