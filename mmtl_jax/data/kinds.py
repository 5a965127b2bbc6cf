"""Targets that lie in the picture: boxes and their labels, masks, depth, keypoints; their form, and what is wrong.

| kind | of one example | in a batch |
|---|---|---|
| `boxes` | `[n, 4]`: ymin, xmin, ymax, xmax as shares of the sides of the picture | ragged float32 |
| `labels` | `[n]`: the classes of the boxes, or of what else comes in lists, from 0 on | ragged int32 |
| `crowd` | `[n]`: whether a box is around a crowd, which is no object | ragged bool |
| `mask` | `[h, w]` or `[h, w, 1]`: classes, 255 (of uint8) or -1 is ignored | `[B, h, w]` int32, -1 is ignored |
| `depth` | `[h, w]` or `[h, w, 1]`: 0 or NaN is not measured | `[B, h, w]` float32, 0 is not measured |
| `keypoints` | `[k, 3]`: y, x as shares of the sides, visibility (0 unknown, 1 hidden, 2 seen) | `[B, k, 3]` float32 |
"""

from collections.abc import Mapping

import numpy as np

# kind -> whether its rows have different lengths.
KINDS = {'boxes': True, 'labels': True, 'crowd': True, 'mask': False, 'depth': False, 'keypoints': False}
IN_PLANE = ('mask', 'depth')
PLACED = (*IN_PLANE, 'boxes', 'keypoints')
FOR_EACH_BOX = {'labels': np.int32, 'crowd': np.bool_}
IGNORED = -1
# In masks of bytes, as Cityscapes and PASCAL VOC have it.
IGNORED_BYTE = 255
# Coordinates are rounded to float32 on their way.
ROUNDING = 1e-6


def of_kind(kind: str, array: np.ndarray) -> np.ndarray:
    """Returns the value of one example as it stands in a batch."""
    if kind in FOR_EACH_BOX:
        return array.astype(FOR_EACH_BOX[kind]) if array.size == 0 or kind == 'crowd' else array
    if kind in IN_PLANE and array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if kind == 'mask':
        whole = array.astype(np.int32)
        return np.where(array == IGNORED_BYTE, IGNORED, whole) if array.dtype == np.uint8 else whole
    array = array.astype(np.float32)
    if kind == 'boxes' and array.size == 0:
        return array.reshape(0, 4)
    return np.where(np.isnan(array), np.float32(0), array) if kind == 'depth' else array


def check_kind(kind: str, array: np.ndarray, num_classes: int | None) -> None:
    """Checks the value of one example, as `of_kind` returns it.

    Raises:
      ValueError: a wrong shape, a box outside of the picture or without area, a class out of range, a keypoint outside.
    """
    expected = {'boxes': '[n, 4]', 'keypoints': '[k, 3]'}.get(kind, '[n]' if kind in FOR_EACH_BOX else '[h, w]')
    ndim = expected.count(',') + 1
    if array.ndim != ndim or (expected[-2].isdigit() and array.shape[-1] != int(expected[-2])):
        raise ValueError(f'has shape {array.shape}, expected {expected} ({kind})')
    if kind == 'boxes':
        check_boxes(array)
    elif kind in ('labels', 'mask') and num_classes is not None and array.size:
        known = array if kind == 'labels' else np.where(array == IGNORED, 0, array)
        wrong = known.min() if known.min() < 0 else known.max()
        if not 0 <= wrong < num_classes:
            ignored = ', or -1 (255 in bytes) to be ignored' if kind == 'mask' else ''
            raise ValueError(
                f'is {int(wrong)} somewhere, expected 0 to {num_classes - 1} (num_classes={num_classes}){ignored}'
            )
    elif kind == 'keypoints':
        seen = array[array[:, 2] > 0, :2]
        if seen.size and (seen.min() < -ROUNDING or seen.max() > 1 + ROUNDING):
            raise ValueError(
                f'has a visible point outside of the picture, {seen.tolist()}: y and x go from 0 to 1, and what is '
                'outside has visibility 0'
            )


def check_boxes(boxes: np.ndarray) -> None:
    """Raises a `ValueError` if a box reaches out of the picture or has no area; it says which, and what to do."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    outside = ~((boxes >= -ROUNDING) & (boxes <= 1 + ROUNDING)).all(axis=1)
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    for wrong, why in ((outside, 'reaches out of the picture'), (empty, 'has no area')):
        if wrong.any():
            number = int(np.argmax(wrong))
            box = [round(float(edge), 4) for edge in boxes[number]]
            raise ValueError(
                f'box number {number}, {box}, {why}: expected 0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1; the '
                'step clean_boxes cuts boxes to the picture and drops the empty ones'
            )


def check_together(
    kinds: Mapping[str, str], values: Mapping[str, np.ndarray | None], pictures: Mapping[str, np.ndarray | None]
) -> None:
    """Checks that the values of one example fit each other.

    Args:
      kinds: path of a target -> its kind.
      values: path -> value; None where it is missing.
      pictures: the inputs that are pictures, by path.

    Raises:
      ValueError: a mask or depth of another size than every picture, or boxes and labels of one task that differ in
        number.
    """
    sizes = {value.shape[:2] for value in pictures.values() if value is not None}
    for path, kind in kinds.items():
        value = values.get(path)
        if value is None:
            continue
        words = f'target {path.split("/", 1)[1]!r}'
        if kind in IN_PLANE and sizes and value.shape[:2] not in sizes:
            listed = ' or '.join(f'{height} x {width}' for height, width in sorted(sizes))
            raise ValueError(
                f'{words} ({kind}) has {value.shape[0]} x {value.shape[1]} pixels, its picture has {listed}; they must '
                'agree: name it among the layers of the steps that change the size of the picture'
            )
        parent = path.rpartition('/')[0]
        boxes = values.get(f'{parent}/boxes')
        if kind in FOR_EACH_BOX and boxes is not None and len(boxes) != len(value):
            raise ValueError(f'{words} has {len(value)} entries for {len(boxes)} boxes; expected one for each')
