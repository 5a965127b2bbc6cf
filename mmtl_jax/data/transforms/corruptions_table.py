"""Corruptions of a table's row `[columns]`, or of any vector."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmtl_jax.data.transforms.base import Transform
from mmtl_jax.data.transforms.corruptions import Corrupt, corruption


def table_dropout(key: str, level: float = 0.5) -> Transform:
    """Makes each cell a missing one (NaN) with probability `level`; at 1 the row is missing."""

    def function(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(np.shape(row)) < level, np.float32(np.nan), np.asarray(row, np.float32))

    return _corruption('table_dropout', function, key, level)


def table_noise(key: str, level: float = 0.5, *, deviation: float | Sequence[float] = 1.0) -> Transform:
    """Adds Gaussian noise to each cell, its deviation `level` times that of the column; a missing cell stays missing.

    Args:
      key: a row of numbers.
      level: 0 to 1.
      deviation: of each column, or of all; `evaluate` gives that of the split. 1 for columns that are standardised.

    Raises:
      ValueError: a deviation is negative; or, from the transform, there is not one for each column.
    """
    scale = np.asarray(deviation, np.float32)
    if not (scale >= 0).all():
        raise ValueError(f'table_noise: deviation must be at least 0, got {deviation}.')

    def function(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row = np.asarray(row, np.float32)
        if scale.ndim and scale.shape != row.shape:
            raise ValueError(f'table_noise: {key!r} has shape {row.shape}, the deviations have {scale.shape}.')
        return row + np.float32(level) * scale * rng.standard_normal(row.shape, np.float32)

    return _corruption('table_noise', function, key, level)


def _corruption(name: str, function: Corrupt, key: str, level: float) -> Transform:
    return corruption(name, function, key, level, fits=_is_row, expected='a number or a vector of numbers')


def _is_row(value: Any) -> bool:
    return np.ndim(value) <= 1 and np.asarray(value).dtype.kind in 'biuf'
