"""From the values of single rows to a batch."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmtl_jax.core.types import Batch, Ragged
from mmtl_jax.data.layout import FieldLayout, Layout, nest, zeros

Values = Mapping[str, np.ndarray | None]


def collate(
    rows: Sequence[Values | None], layout: Layout, bucket: int, optional: frozenset[str] = frozenset()
) -> Batch:
    """Returns the batch of `rows`.

    Args:
      rows: the values of each row by path, None where a value is missing; None for a row that is padding or bad.
      layout: the shapes.
      bucket: the length bucket.
      optional: paths whose missing values do not make a row unlabelled; they are filled with -1, or 0 for floats.

    Raises:
      ValueError: a value does not have the shape of the layout.
    """
    arrays, found = {}, {}
    for path, field in layout.fields.items():
        values = [None if row is None else row.get(path) for row in rows]
        arrays[path] = _fill(path, field, values, bucket, missing=-1 if path in optional else 0)
        found[path] = np.array([value is not None for value in values])
    real = np.array([row is not None for row in rows])
    inputs, targets = nest(arrays, 'inputs'), nest(arrays, 'targets')
    present = {modality: found[f'inputs/{modality}'] for modality in inputs}
    labelled = {task: real.copy() for task in targets}
    for path in found:
        task = path.split('/')[1]
        if path.startswith('targets/') and path not in optional:
            labelled[task] &= found[path]
    return Batch(inputs, present, targets, labelled, real)


def _fill(
    path: str, field: FieldLayout, values: Sequence[np.ndarray | None], bucket: int, missing: int
) -> np.ndarray | Ragged:
    """Returns one array of the batch, with zeros where nothing is."""
    array = zeros(field, len(values), bucket)
    mask = None if field.lengths is None else np.zeros(array.shape[:2], bool)
    scale = np.float32(1 / 255) if field.picture else None
    for index, value in enumerate(values):
        if value is None:
            if missing and array.dtype.kind == 'i':
                array[index] = missing
            continue
        if mask is not None:
            # Only augmentation can exceed the last bucket here; what is cut is what it added.
            value = value[: array.shape[1]]
            mask[index, : len(value)] = True
        expected = array.shape[1:] if mask is None else (len(value), *array.shape[2:])
        if value.shape != expected:
            raise ValueError(
                f'{path}: a row has shape {value.shape}, expected {expected}; every example must have the same, after '
                'augment as after eval_steps.'
            )
        place = index if mask is None else (index, slice(len(value)))
        array[place] = value * scale if scale is not None and value.dtype == np.uint8 else value
    return array if mask is None else Ragged(array, mask)
