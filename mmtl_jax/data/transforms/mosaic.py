"""Four examples in one picture."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.data.transforms.base import Example, Transform, check_rate, is_missing
from mmtl_jax.data.transforms.layers import Layers, as_layers, check_layers
from mmtl_jax.data.transforms.spatial import cut, height_and_width


def mosaic(
    layers: Mapping[str, Any] | Layers,
    size: int | Sequence[int],
    *,
    rate: float = 0.5,
    centre: tuple[float, float] = (0.3, 0.7),
    scale: tuple[float, float] = (0.5, 1.0),
    min_visible: float = 0.25,
    forget: Sequence[str] = (),
) -> Transform:
    """Puts windows of this example and of three others around a random point (YOLOv4, 2004.10934, section 3.3).

    The example is at the top left. The others are drawn from the whole of its data set, as they are before `augment`;
    so this comes first there. What describes one example as a whole, such as its class or its caption, does not fit a
    mosaic: `forget` makes it missing. Of each example a window with the form of its quarter is cut out and scaled to
    it. Boxes, masks and depth follow; the numbers in the instance mask go on counting.

    Args:
      layers: what moves, the fields of `Layers`; keypoints belong to one object of one picture and are not taken.
      size: side of the result in pixels, or its height and width. Where it is no mosaic, the picture must have it.
      rate: how often.
      centre: the least and the largest place of the point where the four meet, as shares of the sides.
      scale: the least and the largest share of the largest possible window's area.
      min_visible: a box of which a smaller share stays in its window is dropped.
      forget: keys of the example that are missing in a mosaic.

    Raises:
      ValueError: a size below 1, a rate that is no probability, a point on the edge, or keypoints.
    """
    size = height_and_width('mosaic', size)
    check_rate('mosaic: rate', rate)
    check_rate('mosaic: min_visible', min_visible)
    if not 0 < centre[0] <= centre[1] < 1:
        raise ValueError(f'mosaic: centre must be two increasing shares between 0 and 1, got {tuple(centre)}.')
    layers = as_layers('mosaic', layers)
    if layers.keypoints is not None:
        raise ValueError('mosaic: four pictures have no common keypoints; leave the keypoints out, or the mosaic.')

    def apply(example: Example, rng: np.random.Generator, draw: Callable[..., Example] | None) -> Example:
        chosen = rng.random() < rate
        if draw is None:
            raise ValueError('mosaic needs the other examples of a data set; only the training loader hands them over.')
        if not chosen or is_missing(example.get(layers.image)):
            return example
        quarters = draw_quarters(size, centre, rng)
        parts = []
        for number, (top, left, bottom, right) in enumerate(quarters):
            other = example if number == 0 else draw(rng)
            if is_missing(other.get(layers.image)):
                other = example
            check_layers(other, layers)
            inner = bottom - top, right - left
            window = window_like(other[layers.image].shape[:2], inner, scale, rng)
            parts.append(cut(other, layers, window, inner, min_visible))
        return {**example, **join(parts, layers, quarters, size), **dict.fromkeys(forget)}

    growth, keys = 4.0 if rate else 1.0, (*layers.keys, *forget)
    return Transform('mosaic', apply, reads=keys, writes=keys, random=True, growth=growth, partners=True, moves=True)


def draw_quarters(
    size: tuple[int, int], centre: tuple[float, float], rng: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """Returns top, left, bottom and right of the four parts around a random whole pixel; none is empty."""
    row, column = (int(np.clip(round(side * rng.uniform(*centre)), 1, max(side - 1, 1))) for side in size)
    return [(0, 0, row, column), (0, column, row, size[1]), (row, 0, size[0], column), (row, column, *size)]


def window_like(
    old: tuple[int, int], form: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Returns top, left, bottom and right of a random window of a picture `old` with the ratio of sides of `form`."""
    share = np.sqrt(rng.uniform(*scale)) * min(side / part for side, part in zip(old, form, strict=True))
    height, width = (min(part * share, side) for side, part in zip(old, form, strict=True))
    top, left = rng.uniform(0, old[0] - height), rng.uniform(0, old[1] - width)
    return top, left, top + height, left + width


def join(
    parts: Sequence[Example], layers: Layers, quarters: Sequence[tuple[int, int, int, int]], size: tuple[int, int]
) -> dict[str, Any]:
    """Returns the layers of four examples side by side; a layer that one of them lacks is missing."""
    whole: dict[str, Any] = {layers.image: _tile([part[layers.image] for part in parts])}
    numbers = [len(part[layers.boxes]) if part.get(layers.boxes) is not None else 0 for part in parts]
    for key in layers.planes:
        planes = [part.get(key) for part in parts]
        if any(is_missing(plane) for plane in planes):
            whole[key] = None
            continue
        if key == layers.instances:
            before = np.cumsum([0, *numbers[:-1]])
            planes = [np.where(plane > 0, plane + start, 0) for plane, start in zip(planes, before, strict=True)]
        whole[key] = _tile(planes)
    if layers.boxes is None:
        return whole
    for key in (layers.boxes, *layers.with_boxes):
        entries = [part.get(key) for part in parts]
        if any(entry is None for entry in entries):
            whole[key] = None
            continue
        if key == layers.boxes:
            entries = [_placed(boxes, quarter, size) for boxes, quarter in zip(entries, quarters, strict=True)]
        whole[key] = np.concatenate(entries)
    return whole


def _tile(quarters: Sequence[np.ndarray]) -> np.ndarray:
    """Returns top left, top right, bottom left and bottom right as one array."""
    return np.concatenate([np.concatenate(quarters[:2], axis=1), np.concatenate(quarters[2:], axis=1)], axis=0)


def _placed(boxes: np.ndarray, quarter: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns the boxes of a part as shares of the whole."""
    top, left, bottom, right = quarter
    inner, start = np.array([bottom - top, right - left] * 2), np.array([top, left] * 2)
    return ((boxes * inner + start) / np.array(size * 2)).astype(np.float32)
