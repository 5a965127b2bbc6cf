"""What lies over a picture and moves with it: masks, instances, boxes, keypoints and depth, by one map of the plane.

Coordinates are continuous: pixel i covers [i, i + 1), so that the edges of a box and the centres of pixels are in one
system. A map is a `[2, 3]` matrix from (x, y, 1) in the old picture to (x, y) in the new one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.ndimage
from PIL import Image

from mmtl_jax.core.build import check_arguments
from mmtl_jax.data.kinds import IGNORED, IGNORED_BYTE, check_boxes
from mmtl_jax.data.transforms.base import Example, is_missing

IDENTITY = np.eye(2, 3)
# Less of a box than this, in square pixels, is nothing.
NOTHING = 1e-6


@dataclasses.dataclass(frozen=True)
class Layers:
    """The keys of what moves together; all but the picture may be left out, and may be missing in an example.

    Attributes:
      image: the picture, `[h, w, 3]` uint8.
      masks: class masks, `[h, w]` or `[h, w, 1]`; what comes into view is ignored, 255 in bytes, else -1.
      instances: an instance mask: n where the object of box number n - 1 is, 0 elsewhere.
      boxes: `[n, 4]`: ymin, xmin, ymax, xmax as shares of the sides.
      tight: boxes are drawn anew around what the instance mask shows of their objects, rather than around their moved
        corners, which leaves room where they are turned or cut off; those of which it shows nothing are dropped.
      with_boxes: lists with one entry for each box, such as labels; boxes are dropped together with their entries.
      keypoints: `[k, 3]`: y, x as shares of the sides, and visibility; what leaves the picture gets visibility 0.
      keypoint_pairs: numbers of the keypoints that change places where the picture is mirrored, such as the two eyes.
      depths: maps of depth, `[h, w]` or `[h, w, 1]`; 0 is not measured, as is what comes into view.
    """

    image: str = 'image'
    masks: tuple[str, ...] = ()
    instances: str | None = None
    boxes: str | None = None
    tight: bool = False
    with_boxes: tuple[str, ...] = ()
    keypoints: str | None = None
    keypoint_pairs: tuple[tuple[int, int], ...] = ()
    depths: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys."""
        single = (self.image, self.instances, self.boxes, self.keypoints)
        return tuple(key for key in (*single, *self.masks, *self.with_boxes, *self.depths) if key is not None)

    @property
    def planes(self) -> tuple[str, ...]:
        """The keys of what has a value for each pixel, but for the picture."""
        return (*self.masks, *self.depths, *((self.instances,) if self.instances else ()))


def as_layers(name: str, layers: Mapping[str, Any] | Layers) -> Layers:
    """Returns the layers that a config describes.

    Raises:
      ValueError: an argument that `Layers` does not have, or one key where several are expected.
    """
    if isinstance(layers, Layers):
        return layers
    check_arguments(f'the layers of {name}', Layers, layers)
    for field in ('masks', 'with_boxes', 'depths'):
        if isinstance(layers.get(field, ()), str):
            raise ValueError(f'the layers of {name}: {field} are several keys, write ({layers[field]!r},).')
    if layers.get('tight') and not (layers.get('instances') and layers.get('boxes')):
        raise ValueError(f'the layers of {name}: tight boxes need both boxes and instances, got {dict(layers)}.')
    pairs = tuple(tuple(pair) for pair in layers.get('keypoint_pairs', ()))
    several = {field: tuple(layers[field]) for field in ('masks', 'with_boxes', 'depths') if field in layers}
    return Layers(**{**layers, **several, 'keypoint_pairs': pairs})


def check_layers(example: Example, layers: Layers) -> None:
    """Raises a `ValueError` where the layers of an example do not fit its picture, or each other."""
    image = example[layers.image]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'{layers.image!r} must be a picture [h, w, 3] of bytes, got {image.shape} of {image.dtype}; use to_rgb '
            'before, and colour_jitter and to_float after what moves it'
        )
    for key in layers.planes:
        plane = example.get(key)
        if not is_missing(plane) and (plane.shape[:2] != image.shape[:2] or plane.ndim > 3):
            raise ValueError(
                f'{key!r} has {" x ".join(map(str, plane.shape[:2]))} pixels, its picture {layers.image!r} has '
                f'{image.shape[0]} x {image.shape[1]}; they must agree'
            )
    boxes = example.get(layers.boxes)
    if boxes is None:
        return
    check_boxes(boxes)
    for key in layers.with_boxes:
        if example.get(key) is not None and len(example[key]) != len(boxes):
            raise ValueError(f'{key!r} has {len(example[key])} entries for {len(boxes)} boxes; expected one for each')


def move(
    example: Example,
    layers: Layers,
    matrix: np.ndarray,
    size: tuple[int, int],
    *,
    picture: np.ndarray | None = None,
    fill: int = 255,
    min_visible: float = 0.25,
    zoom: float = 1.0,
) -> Example:
    """Returns the example after a map of the plane; nothing is copied where the map is the identity.

    Args:
      example: with a picture, and layers that fit it.
      layers: what moves.
      matrix: `[2, 3]`, from the old picture to the new one, in pixels.
      size: height and width of the new picture.
      picture: the new picture, where it has been made in a better way; else it is read off bilinearly.
      fill: colour of what comes into view.
      min_visible: a box of which a smaller share of its area stays in the picture is dropped.
      zoom: how much nearer everything seems; depth is divided by it.
    """
    old = example[layers.image]
    if size == old.shape[:2] and np.array_equal(matrix, IDENTITY):
        return example
    moved: dict[str, Any] = {layers.image: _read_off(old, matrix, size, fill) if picture is None else picture}
    planes = {key: example[key] for key in layers.planes if not is_missing(example.get(key))}
    if planes:
        moved |= _move_planes(planes, layers, matrix, size, zoom)
    boxes = example.get(layers.boxes)
    if boxes is not None:
        new, kept = move_boxes(boxes, old.shape[:2], matrix, size, min_visible)
        if layers.tight and layers.instances in moved:
            new, seen = boxes_around(renumber(moved[layers.instances], kept), len(new))
            kept = kept[seen]
        moved[layers.boxes] = new
        moved |= {key: np.asarray(example[key])[kept] for key in layers.with_boxes if example.get(key) is not None}
        if layers.instances in moved:
            moved[layers.instances] = renumber(moved[layers.instances], kept)
    keypoints = example.get(layers.keypoints)
    if not is_missing(keypoints):
        moved[layers.keypoints] = move_keypoints(keypoints, old.shape[:2], matrix, size, layers.keypoint_pairs)
    return {**example, **moved}


def move_boxes(
    boxes: np.ndarray, old: tuple[int, int], matrix: np.ndarray, new: tuple[int, int], min_visible: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes around the moved corners, cut to the new picture, and the numbers of those that are kept."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    edges = boxes.astype(np.float64) * (*old, *old)
    corners = np.stack([edges[:, [x, y]] for x, y in ((1, 0), (3, 0), (1, 2), (3, 2))], axis=1)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    low, high = corners.min(axis=1), corners.max(axis=1)
    area = np.prod(high - low, axis=1)
    bounds = np.array(new[::-1], np.float64)
    low, high = np.clip(low, 0, bounds), np.clip(high, 0, bounds)
    left = np.prod(high - low, axis=1)
    kept = np.flatnonzero((left > NOTHING) & (left >= min_visible * area))
    moved = np.concatenate([(low / bounds)[:, ::-1], (high / bounds)[:, ::-1]], axis=1)
    return moved[kept].astype(np.float32), kept


def boxes_around(instances: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes of the instances 1 to `number` that are in a mask, and their numbers counted from 0."""
    height, width = instances.shape[:2]
    found = scipy.ndimage.find_objects(instances.reshape(height, width).astype(np.int32), max_label=number)
    edges = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in filter(None, found)]
    seen = np.flatnonzero([place is not None for place in found])
    return (np.array(edges, np.float32).reshape(-1, 4) / (height, width, height, width)).astype(np.float32), seen


def move_keypoints(
    keypoints: np.ndarray,
    old: tuple[int, int],
    matrix: np.ndarray,
    new: tuple[int, int],
    pairs: tuple[tuple[int, int], ...] = (),
) -> np.ndarray:
    """Returns the moved keypoints; those outside, or unknown before, are zeros. A mirrored picture swaps the pairs."""
    points = np.asarray(keypoints, np.float64)
    places = (points[:, 1::-1] * old[::-1]) @ matrix[:, :2].T + matrix[:, 2]
    places = places / new[::-1]
    seen = (points[:, 2] > 0) & (places >= 0).all(axis=1) & (places <= 1).all(axis=1)
    moved = np.where(seen[:, None], np.concatenate([places[:, ::-1], points[:, 2:]], axis=1), 0.0)
    if np.linalg.det(matrix[:, :2]) < 0:
        order = np.arange(len(points))
        for one, other in pairs:
            order[[one, other]] = other, one
        moved = moved[order]
    return moved.astype(np.float32)


def renumber(instances: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns an instance mask in which what was box `kept[n - 1]` is n, and every other is background."""
    numbers = np.zeros(max(int(instances.max(initial=0)), int(kept.max(initial=0)) + 1) + 1, instances.dtype)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    return numbers[instances]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Returns the map back, `[2, 3]`."""
    turn = np.linalg.inv(matrix[:, :2])
    return np.concatenate([turn, -turn @ matrix[:, 2:]], axis=1)


def _read_off(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], fill: int) -> np.ndarray:
    """Returns the picture, bilinear."""
    back = tuple(inverse(matrix).reshape(-1).tolist())
    return np.asarray(
        Image.fromarray(image).transform(
            size[::-1], Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=(fill,) * 3
        )
    )


def _move_planes(
    planes: Mapping[str, np.ndarray], layers: Layers, matrix: np.ndarray, size: tuple[int, int], zoom: float
) -> dict[str, np.ndarray]:
    """Returns what has a value for each pixel: that of the old pixel in which the new one's centre lies."""
    height, width = next(iter(planes.values())).shape[:2]
    back = inverse(matrix)
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    columns = np.floor(back[0, 0] * x + back[0, 1] * y + back[0, 2]).astype(int)
    rows = np.floor(back[1, 0] * x + back[1, 1] * y + back[1, 2]).astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    # One number for each pixel is much faster to look up than two.
    places, outside, moved = np.where(inside, rows * width + columns, 0), ~inside, {}
    for key, plane in planes.items():
        found = plane.reshape(height * width, *plane.shape[2:])[places]
        if key in layers.depths and zoom != 1.0:
            found = (found / zoom).astype(plane.dtype if plane.dtype.kind == 'f' else np.float32)
        found[outside] = _outside(key, plane, layers)
        moved[key] = found
    return moved


def _outside(key: str, plane: np.ndarray, layers: Layers) -> int:
    """Returns what stands for that of which nothing is known."""
    if key not in layers.masks:
        return 0
    return IGNORED_BYTE if plane.dtype == np.uint8 else IGNORED
