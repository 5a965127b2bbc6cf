"""What the corruptions share: a level from 0, the input as it is, to 1, the input at its worst.

A corruption belongs where the data comes in: to the picture before it is scaled, to the waveform before its
spectrogram, to the text before its tokens. Random numbers are drawn before the level is looked at, so that with one
generator a higher level is the same damage and more of it. `evaluate --corruptions=...` draws a curve over the levels;
under `augment`, a corruption is an augmentation of one level.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mmtl_jax.data.transforms.base import Transform, check_rate, on_key

Corrupt = Callable[[Any, np.random.Generator], Any]


def corruption(
    name: str, function: Corrupt, key: str, level: float, *, fits: Callable[[Any], bool], expected: str
) -> Transform:
    """Returns the transform that sets `key` to `function(value, rng)`; at level 0 the value stays what it is.

    Args:
      name: the factory's name.
      function: makes a new value; leaves the old one alone.
      key: what is corrupted.
      level: 0 to 1.
      fits: whether a value is of the kind that the function takes.
      expected: that kind, in words.

    Raises:
      ValueError: the level is not between 0 and 1; or, from the transform, a value does not fit.
    """
    check_rate(f'{name}: level', level)

    def checked(value: Any, rng: np.random.Generator) -> Any:
        if not fits(value):
            raise ValueError(f'{name} needs {expected}, but {key!r} is {_described(value)}.')
        return function(value, rng) if level > 0 else value

    return on_key(name, checked, key, random=True)


def _described(value: Any) -> str:
    """Returns type and shape of a value, in words."""
    if isinstance(value, np.ndarray):
        return f'an array of {value.dtype} and shape {value.shape}'
    return f'of type {type(value).__name__}'
