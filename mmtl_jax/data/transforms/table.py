"""Transforms of numbers, and of the example itself."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmtl_jax.data.transforms.base import Example, Transform, on_key


def standardise(key: str, statistics: Mapping[str, Sequence[float]]) -> Transform:
    """Returns `(value - mean) / std`, float32; a missing cell (NaN) stays missing.

    Args:
      key: a number or a vector.
      statistics: 'mean' and 'std' of the training split, as `fit_vocabularies` makes them; in a config the name under
        which they were fitted.
    """
    if not isinstance(statistics, Mapping) or not {'mean', 'std'} <= set(statistics):
        raise ValueError(
            f"standardise: statistics must hold 'mean' and 'std', got {statistics!r}; fit them with "
            "fit_vocabularies({...: {'kind': 'statistics', 'key': ...}}, source)."
        )
    mean = np.asarray(statistics['mean'], np.float32)
    std = np.asarray(statistics['std'], np.float32)

    def function(value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, np.float32)
        if value.shape != mean.shape:
            raise ValueError(f'standardise: the statistics have shape {mean.shape}, {key!r} has {value.shape}.')
        return (value - mean) / np.where(std > 0, std, 1.0).astype(np.float32)

    return on_key('standardise', function, key)


def stack(keys: Sequence[str], out: str) -> Transform:
    """Puts numbers, flags and vectors side by side in one float32 vector; missing if all are, NaN where a number is."""
    keys = tuple(keys)

    def apply(example: Example) -> Example:
        cells = [example.get(key) for key in keys]
        if all(cell is None for cell in cells):
            return {**example, out: None}
        parts = [np.atleast_1d(np.float32(np.nan) if cell is None else cell).astype(np.float32) for cell in cells]
        return {**example, out: np.concatenate(parts)}

    return Transform('stack', apply, reads=keys, writes=(out,))


def multi_hot(key: str, num_classes: int, out: str | None = None) -> Transform:
    """Turns a list of class numbers into a 0/1 vector `[num_classes]` float32; an empty list means no class."""

    def apply(example: Example) -> Example:
        value = example.get(key)
        if value is None:
            return {**example, out or key: None}
        labels = np.atleast_1d(np.asarray(value)).astype(np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(f'multi_hot: {key!r} holds {labels.tolist()}, expected 0 to {num_classes - 1}.')
        vector = np.zeros(num_classes, np.float32)
        vector[labels] = 1.0
        return {**example, out or key: vector}

    return Transform('multi_hot', apply, reads=(key,), writes=(out or key,))


def select(keys: Sequence[str]) -> Transform:
    """Keeps only `keys`."""
    keys = tuple(keys)

    def apply(example: Example) -> Example:
        return {key: example[key] for key in keys if key in example}

    return Transform('select', apply, reads=keys, writes=keys)


def rename(keys: Mapping[str, str]) -> Transform:
    """Gives keys new names, `{old: new}`."""
    keys = dict(keys)

    def apply(example: Example) -> Example:
        return {keys.get(key, key): value for key, value in example.items()}

    return Transform('rename', apply, reads=tuple(keys), writes=tuple(keys.values()))
