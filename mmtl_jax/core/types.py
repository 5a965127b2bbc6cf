"""The nouns: what flows between data, encoders, fusion, sharing, heads and tasks.

Missing inputs, missing labels and padded rows are masks, never shapes, so that one compiled step serves every batch.
"""

import dataclasses
from typing import Any

import jax
from flax import struct

Array = jax.Array
PyTree = Any


@struct.dataclass
class Ragged:
    """Sequences of different lengths, padded to one.

    Attributes:
      values: `[B, L, ...]`; what stands in masked positions is undefined and must not change any result.
      mask: `[B, L]` bool, True = real.
    """

    values: Array
    mask: Array


@struct.dataclass
class Features:
    """What an encoder, a fusion or a sharing scheme hands on.

    Attributes:
      tokens: `[B, N, D]`; a vector is one token.
      mask: `[B, N]` bool, True = real. A missing modality has no real token.
      maps: spatial maps `[B, h, w, c]`, finest first; empty for inputs without space.
    """

    tokens: Array
    mask: Array
    maps: tuple[Array, ...] = ()


@struct.dataclass
class Fused(Features):
    """Features from a fusion or a sharing scheme that learns something by itself, such as to rebuild what it joined.

    Attributes:
      objectives: name -> `[B]`, a loss of each row, never negative; 0 where a row has nothing to learn from.
    """

    objectives: dict[str, Array] = dataclasses.field(default_factory=dict)


@struct.dataclass
class Batch:
    """A batch of examples, every modality and every task in the same rows.

    Attributes:
      inputs: modality -> array `[B, ...]` or `Ragged`.
      present: modality -> `[B]` bool, False = this row lacks the modality.
      targets: task -> pytree of arrays `[B, ...]`.
      labelled: task -> `[B]` bool, False = this row lacks the label.
      real: `[B]` bool, False = padding of the last batch.
    """

    inputs: dict[str, Any]
    present: dict[str, Array]
    targets: dict[str, Any]
    labelled: dict[str, Array]
    real: Array
