"""Transforms of what lies over a picture that do not move it: boxes are cleaned, classes renumbered."""

from collections.abc import Sequence

import numpy as np

from mmtl_jax.data.kinds import IGNORED, IGNORED_BYTE
from mmtl_jax.data.transforms.base import Example, Transform, on_key


def clean_boxes(boxes: str, *, with_boxes: Sequence[str] = (), unless: Sequence[str] = ()) -> Transform:
    """Cuts boxes to the picture and drops those without area, as published annotations have some.

    Args:
      boxes: the key of boxes `[n, 4]`: ymin, xmin, ymax, xmax as shares of the sides.
      with_boxes: keys of lists with one entry for each box, dropped with them.
      unless: keys of flags, one for each box, whose true value drops it, such as 'objects/is_crowd' of COCO or
        'objects/is_difficult' of PASCAL VOC.
    """
    entries = tuple(with_boxes)

    def apply(example: Example) -> Example:
        value = example.get(boxes)
        if value is None:
            return example
        cut = np.clip(np.asarray(value, np.float32).reshape(-1, 4), 0, 1)
        kept = (cut[:, 2:] > cut[:, :2]).all(axis=1)
        for key in unless:
            kept &= ~np.asarray(example[key], bool)
        found = {key: np.asarray(example[key])[kept] for key in entries if example.get(key) is not None}
        return {**example, boxes: cut[kept], **found}

    return Transform('clean_boxes', apply, reads=(boxes, *entries, *unless), writes=(boxes, *entries))


def single_box(key: str, *, label: str | None = None, out: str = 'objects') -> Transform:
    """Turns the one box of an example, `[4]`, into a list of boxes, `<out>/bbox`, and its label into `<out>/label`.

    Args:
      key: of the box; one without area, by which some data sets say that there is none, gives an empty list.
      label: the key of its class; None for class 0.
      out: the beginning of the new keys.
    """

    def apply(example: Example) -> Example:
        value = example.get(key)
        if value is None:
            return {**example, f'{out}/bbox': None, f'{out}/label': None}
        box = np.asarray(value, np.float32).reshape(1, 4)
        kept = (box[:, 2:] > box[:, :2]).all(axis=1)
        number = 0 if label is None else int(example[label])
        return {**example, f'{out}/bbox': box[kept], f'{out}/label': np.array([number])[kept]}

    reads = (key,) if label is None else (key, label)
    return Transform('single_box', apply, reads=reads, writes=(f'{out}/bbox', f'{out}/label'))


def map_labels(key: str, values: Sequence[int], *, other: int | None = None, out: str | None = None) -> Transform:
    """Renumbers classes: `values[n]` becomes n, and what is not among them `other`.

    Args:
      key: of a mask or of labels, whole numbers.
      values: the old numbers in the order of the new ones.
      other: what every other number becomes; None takes what masks ignore: 255 in bytes, else -1.
      out: the key of the result; None takes `key`.

    Raises:
      ValueError: a number occurs twice, or is negative.
    """
    values = tuple(values)
    if not values or len(set(values)) != len(values) or min(values) < 0:
        raise ValueError(f'map_labels: values must be different numbers from 0 on, got {values}.')

    def function(labels: np.ndarray) -> np.ndarray:
        labels = np.asarray(labels)
        rest = (IGNORED_BYTE if labels.dtype == np.uint8 else IGNORED) if other is None else other
        table = np.full(max(int(labels.max(initial=0)), *values) + 1, rest)
        table[list(values)] = np.arange(len(values))
        return np.where(labels < 0, rest, table[np.maximum(labels, 0)]).astype(labels.dtype)

    return on_key('map_labels', function, key, out)
