"""What the schemes are made of: a network from Features to Features, and weighted sums of what such networks give.

The tokens and each spatial map are streams. A scheme treats all of them alike; a map keeps its size and its channels.
"""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import MLP, fill_masked


class Layers(nn.Module):
    """An MLP on the last axis, then a LayerNorm: of tokens, or of the cells of a map.

    Attributes:
      width: size of every layer.
      depth: number of layers.
      dropout_rate: dropout after each.
      dtype: of the arithmetic.
    """

    width: int
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `[..., width]` for `x` `[..., C]`."""
        hidden = MLP(self.width, self.depth, self.dropout_rate, self.dtype)(x, train=train)
        return nn.LayerNorm(dtype=self.dtype)(hidden)


class Branch(nn.Module):
    """`Layers` of its own for each stream: for the tokens at `tokens`, for the maps at `map_0`, `map_1`, ...

    Attributes:
      width: of the tokens.
      depth: layers.
      dropout_rate: dropout after each.
      dtype: of the arithmetic.
    """

    width: int
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, channels: Sequence[int] = (), train: bool) -> Features:
        """Returns Features with tokens `[B, N, width]` and maps of `channels`, by default as many as they have."""

        def layers(name: str, stream: Array, width: int) -> Array:
            return Layers(width, self.depth, self.dropout_rate, self.dtype, name=name)(stream, train=train)

        widths = (self.width, *(channels or (level.shape[-1] for level in features.maps)))
        return each_stream(layers, features, widths)


def each_stream(function: Callable[..., Array], features: Features, *others: Sequence) -> Features:
    """Returns Features whose streams are `function(name, stream, ...)`, with what `others` hold for each stream.

    Masked tokens are zero, before and after. The first stream is that of the tokens, then come the maps.
    """
    streams = (fill_masked(features.tokens, features.mask), *features.maps)
    names = ('tokens', *(f'map_{level}' for level in range(len(features.maps))))
    tokens, *maps = (function(*arguments) for arguments in zip(names, streams, *others, strict=True))
    return Features(fill_masked(tokens, features.mask), features.mask, tuple(maps))


def mix(weights: Array, candidates: Sequence[Features]) -> Features:
    """Returns sum_k w_k f_k, stream by stream.

    Args:
      weights: `[K]`, or `[B, K]` for weights of each row.
      candidates: K Features of the same shapes and mask.
    """

    def combine(*streams: Array) -> Array:
        rows = 'b' * (weights.ndim - 1)
        stacked = jnp.stack(streams)
        return jnp.einsum(f'{rows}k,kb...->b...', weights.astype(stacked.dtype), stacked)

    streams = jax.tree.map(combine, *((features.tokens, features.maps) for features in candidates))
    return Features(streams[0], candidates[0].mask, streams[1])


def across_tasks(function: Callable[[str, Array], Array], outputs: Mapping[str, Features]) -> dict[str, Features]:
    """Returns each task's Features, with `function(name, stream [T, ...])` applied to the streams of all tasks."""
    mixed = each_stream(function, jax.tree.map(lambda *streams: jnp.stack(streams), *outputs.values()))
    return {task: jax.tree.map(lambda stream, t=t: stream[t], mixed) for t, task in enumerate(outputs)}


def concatenate(several: Sequence[Features]) -> Features:
    """Returns Features whose streams stand side by side in the channels."""
    first = several[0]
    tokens, maps = jax.tree.map(
        lambda *streams: jnp.concatenate(streams, axis=-1), *((each.tokens, each.maps) for each in several)
    )
    return Features(tokens, first.mask, maps)
