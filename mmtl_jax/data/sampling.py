"""Which rows of training count as one group, and how often each group comes: rare classes, languages, patterns."""

import dataclasses
import difflib
from typing import Any

import numpy as np

from mmtl_jax.data.prepared import PreparedSource
from mmtl_jax.data.transforms.base import is_missing

PATTERN = 'modalities'


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws the rows of a source by groups.

    With n_c rows in group c, its share of the draws is n_c^(1 - power) / sum_d n_d^(1 - power): the exponent smoothing
    of multilingual training (Conneau & Lample 2019, 1901.07291, section 3.1, whose alpha is 1 - power).

    Attributes:
      by: a task of one label, or a key of the examples, whose values are the groups, missing ones a group too; or
        'modalities': the pattern of the modalities that a row has.
      power: from 0, as they come, to 1, every group equally often.
    """

    by: str
    power: float = 1.0

    def __post_init__(self):
        """Checks the power."""
        if not 0.0 <= self.power <= 1.0:
            raise ValueError(f'data.sampling.power must be from 0 to 1, got {self.power}.')

    def check(self, prepared: PreparedSource) -> None:
        """Raises a `ValueError` if a source has nothing to sample by."""
        if self.by != PATTERN:
            label(self.by, _values(prepared, self._key(prepared), rows=1)[0])

    def groups(self, prepared: PreparedSource) -> np.ndarray:
        """Returns the number of the group of every row, `[rows]` int64.

        Raises:
          ValueError: the source has nothing to sample by.
        """
        if self.by == PATTERN:
            return _patterns(prepared)
        values = _values(prepared, self._key(prepared), rows=len(prepared))
        return np.unique([repr(label(self.by, value)) for value in values], return_inverse=True)[1]

    def _key(self, prepared: PreparedSource) -> str:
        """Returns the key of the examples whose values are the groups."""
        targets = {field.path.removeprefix('targets/'): field.key for field in prepared.preprocess.fields}
        targets = {name: key for name, key in targets.items() if key is not None and '/' not in name}
        key = targets.get(self.by, self.by)
        if key not in prepared.source.keys and key not in targets.values():
            known = sorted({*targets, *prepared.source.keys, PATTERN})
            close = difflib.get_close_matches(self.by, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'choose one of {known}.'
            raise ValueError(
                f'data.sampling.by is {self.by!r}, which is no task and no key of {prepared.source.name!r}; {hint}'
            )
        return key


def label(by: str, value: Any) -> int | str | None:
    """Returns the value of a key as a label, None where it is missing.

    Raises:
      ValueError: it is no label.
    """
    if is_missing(value):
        return None
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in 'biuSU':
        got = f'{array.dtype} of the shape {array.shape}' if array.ndim else type(value).__name__
        raise ValueError(f'data.sampling.by is {by!r}, which holds {got}; choose a key of whole numbers or text.')
    return array.item()


def _values(prepared: PreparedSource, key: str, *, rows: int) -> list[Any]:
    """Returns what the first rows have under a key: of the source, or after the steps; None in a bad row."""
    if key in prepared.source.keys:
        selected = prepared.source.select([key])
        return [selected[row].get(key) for row in range(rows)]
    return [(prepared.row(row) or {}).get(key) for row in range(rows)]


def _patterns(prepared: PreparedSource) -> np.ndarray:
    """Returns the groups of rows with the same modalities; a row without any, such as a bad one, is in the largest."""
    info = prepared.info(lengths=True)
    has = np.stack([info[field.path].lengths > 0 for field in prepared.preprocess.fields if field.is_input], axis=1)
    groups, any_there = np.unique(has, axis=0, return_inverse=True)[1].reshape(-1), has.any(axis=1)
    return np.where(any_there, groups, np.bincount(groups[any_there]).argmax()) if any_there.any() else groups
