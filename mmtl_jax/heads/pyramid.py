"""What the dense heads share: a pyramid of maps joined into one, and a value for each of its cells."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import at_least_float32, conv_kernel, fill_masked


def maps_of(features: Features | Mapping[str, Features], head: str, level: int = 0) -> tuple[Array, ...]:
    """Returns the spatial maps from `level` on, finest first; zero in rows without any real token.

    Raises:
      ValueError: features of several modalities, features without maps, or fewer maps than `level` asks for.
    """
    if not isinstance(features, Features):
        raise ValueError(f'{head} reads one picture, got the modalities {sorted(features)}; name one of them in reads.')
    if not features.maps:
        raise ValueError(
            f'{head} needs spatial maps, but these features have none: encoders of images give them, and fused '
            'features have those of the modality that the config names in fusion.maps; name it there, or let the task '
            "read the modality of the picture, such as reads='image'."
        )
    if not 0 <= level < len(features.maps):
        raise ValueError(f'{head}: level must be between 0 and {len(features.maps) - 1}, got {level}.')
    present = jnp.any(features.mask, axis=1)
    return tuple(fill_masked(level_map, present) for level_map in features.maps[level:])


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2016, 1612.03144, section 3): every map, brought to the size of the finest.

    With C_0 the finest of the maps, from the coarsest on

        P_l = W_l C_l + up(P_{l+1}),    y = relu(norm(conv(P_0))),

    where up is bilinear (nearest in the paper), the convolution 3x3, and norm a GroupNorm (none in the paper, whose
    heads normalise for themselves).

    Attributes:
      width: channels of every level.
      dropout_rate: of whole channels of the result.
      dtype: of the arithmetic.
    """

    width: int = 64
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], *, train: bool) -> Array:
        """Returns `[B, h, w, width]` for maps `[B, h, w, c]`, finest first."""
        top = None
        for index, level in reversed(tuple(enumerate(maps))):
            lateral = nn.Dense(self.width, dtype=self.dtype, name=f'lateral_{index}')(level)
            top = lateral if top is None else lateral + resized(top, lateral.shape[1:3])
        joint = ConvBlock(self.width, self.dtype, name='joint')(top)
        return nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train)(joint)


class ConvBlock(nn.Module):
    """A 3x3 convolution, GroupNorm and ReLU.

    Attributes:
      width: channels of the result.
      dtype: of the arithmetic.
    """

    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[B, h, w, width]`."""
        x = nn.Conv(self.width, (3, 3), use_bias=False, kernel_init=conv_kernel, dtype=self.dtype)(x)
        return nn.relu(nn.GroupNorm(math.gcd(self.width, 8), dtype=self.dtype)(x))


class CellReadout(nn.Module):
    """A pyramid and a linear layer: maps `[B, h, w, c]`, finest first -> `[B, h, w, channels]`, or of another size.

    Attributes:
      channels: of the result.
      width: channels of the pyramid.
      size: height and width of the result, or one number for both; None for those of the finest map.
      dropout_rate: before the linear layer, of whole channels.
      dtype: of the arithmetic; the result has at least 32 bits.
    """

    channels: int
    width: int = 64
    size: int | tuple[int, int] | None = None
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: tuple[Array, ...], *, train: bool) -> Array:
        """Returns `[B, *size, channels]`; resizing is bilinear."""
        joint = Pyramid(self.width, self.dropout_rate, self.dtype)(maps, train=train)
        values = at_least_float32(nn.Dense(self.channels, dtype=self.dtype)(joint))
        if self.size is None:
            return values
        return resized(values, (self.size, self.size) if isinstance(self.size, int) else tuple(self.size))


def resized(x: Array, size: tuple[int, int]) -> Array:
    """Returns `x` `[B, h, w, c]` at `size`, bilinearly; unchanged if it has it."""
    return x if x.shape[1:3] == size else jax.image.resize(x, (len(x), *size, x.shape[-1]), 'bilinear')
