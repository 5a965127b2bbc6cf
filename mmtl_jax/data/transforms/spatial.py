"""Transforms that move a picture and all that lies over it by one draw: masks, boxes, keypoints and depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmtl_jax.data.transforms.base import Example, Transform, check_rate, is_missing
from mmtl_jax.data.transforms.layers import Layers, as_layers, check_layers, move

TRIES = 10


def random_spatial(
    layers: Mapping[str, Any] | Layers,
    *,
    degrees: float = 10.0,
    shear: float = 0.0,
    scale: tuple[float, float] = (0.9, 1.1),
    translate: float = 0.05,
    flip: float = 0.5,
    unless: str | None = None,
    fill: int = 255,
    min_visible: float = 0.25,
) -> Transform:
    """Mirrors, zooms, shears, rotates and shifts around the centre, in this order, keeping the size of the picture.

    A box becomes the rectangle around its moved corners, which is larger than the object where it is turned, cut to the
    picture. Depth is divided by the zoom: what seems larger is nearer (Eigen et al. 2014, 1406.2283, section 3.4).

    Args:
      layers: what moves, the fields of `Layers`.
      degrees: the largest rotation to either side.
      shear: the largest angle by which the vertical is slanted, in degrees.
      scale: the least and the largest zoom.
      translate: the largest shift, as a share of the side.
      flip: how often left and right are exchanged.
      unless: a key whose true value forbids the flip, such as a flag for writing.
      fill: colour of what comes into view.
      min_visible: a box of which a smaller share stays in the picture is dropped, with its entries.

    Raises:
      ValueError: a rate that is no probability, a zoom that is not positive, or layers that do not exist.
    """
    check_rate('random_spatial: flip', flip)
    check_rate('random_spatial: min_visible', min_visible)
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f'random_spatial: scale must be the least and the largest zoom, above 0, got {tuple(scale)}.')
    layers = as_layers('random_spatial', layers)

    def apply(example: Example, rng: np.random.Generator) -> Example:
        # All are drawn, so that what one example has does not change the draws.
        mirrored, zoom = rng.random() < flip, rng.uniform(*scale)
        slant, angle = (np.deg2rad(rng.uniform(-limit, limit)) for limit in (shear, degrees))
        shift = rng.uniform(-translate, translate, size=2)
        if is_missing(example.get(layers.image)):
            return example
        check_layers(example, layers)
        height, width = example[layers.image].shape[:2]
        mirrored = mirrored and not (unless is not None and bool(example.get(unless)))
        turn = affine(mirrored=mirrored, zoom=zoom, slant=slant, angle=angle)
        centre = np.array([width, height]) / 2
        matrix = np.concatenate([turn, (centre - turn @ centre + shift * (width, height))[:, None]], axis=1)
        return move(example, layers, matrix, (height, width), fill=fill, min_visible=min_visible, zoom=zoom)

    reads = layers.keys if unless is None else (*layers.keys, unless)
    return Transform('random_spatial', apply, reads=reads, writes=layers.keys, random=True, moves=True)


def affine(*, mirrored: bool = False, zoom: float = 1.0, slant: float = 0.0, angle: float = 0.0) -> np.ndarray:
    """Returns `[2, 2]`: rotation by `angle` after shear by `slant` after zoom after mirroring; angles in radians."""
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    slanted = np.array([[1.0, np.tan(slant)], [0.0, 1.0]])
    return rotation @ slanted @ np.diag([-zoom if mirrored else zoom, zoom])


def random_spatial_crop(
    layers: Mapping[str, Any] | Layers,
    size: int | Sequence[int],
    *,
    scale: tuple[float, float] = (0.3, 1.0),
    aspect: tuple[float, float] = (0.75, 4 / 3),
    min_visible: float = 0.25,
) -> Transform:
    """Cuts out a random window and scales it to `size` (1409.4842); where there are boxes, one that keeps some of them.

    Args:
      layers: what moves, the fields of `Layers`.
      size: side of the result in pixels, or its height and width.
      scale: the least and the largest share of the area that is kept.
      aspect: the least and the largest ratio of width to height of the window, relative to that of the result.
      min_visible: a box of which a smaller share stays in the window is dropped. Ten windows are drawn before the
        last is taken without any box.

    Raises:
      ValueError: a size below 1, or layers that do not exist.
    """
    size = height_and_width('random_spatial_crop', size)
    check_rate('random_spatial_crop: min_visible', min_visible)
    layers = as_layers('random_spatial_crop', layers)

    def apply(example: Example, rng: np.random.Generator) -> Example:
        if is_missing(example.get(layers.image)):
            return example
        check_layers(example, layers)
        image, boxes = example[layers.image], example.get(layers.boxes)
        for _ in range(TRIES):
            window = random_window(image.shape[:2], size, scale, aspect, rng)
            cropped = cut(example, layers, window, size, min_visible)
            if boxes is None or not len(boxes) or len(cropped[layers.boxes]):
                break
        return cropped

    return Transform('random_spatial_crop', apply, reads=layers.keys, writes=layers.keys, random=True, moves=True)


def resize_with_padding(layers: Mapping[str, Any] | Layers, size: int | Sequence[int], *, fill: int = 255) -> Transform:
    """Scales a picture until it fits into `size` and pads it around the centre; what lies over it follows.

    The picture is scaled with PIL's bicubic filter, which widens where it shrinks; masks and depth by the nearest
    pixel. Boxes keep their number. Padding is ignored in masks and not measured in depth.

    Args:
      layers: what moves, the fields of `Layers`.
      size: side of the result in pixels, or its height and width.
      fill: colour of the padding, 255 is white.

    Raises:
      ValueError: a size below 1, or layers that do not exist.
    """
    size = height_and_width('resize_with_padding', size)
    layers = as_layers('resize_with_padding', layers)

    def apply(example: Example) -> Example:
        if is_missing(example.get(layers.image)):
            return example
        check_layers(example, layers)
        image = example[layers.image]
        if image.shape[:2] == size:
            return example
        ratio = min(new / old for new, old in zip(size, image.shape[:2], strict=True))
        inner = tuple(max(1, min(round(side * ratio), new)) for side, new in zip(image.shape[:2], size, strict=True))
        top, left = ((new - part) // 2 for new, part in zip(size, inner, strict=True))
        canvas = np.full((*size, 3), fill, np.uint8)
        scaled = Image.fromarray(image).resize(inner[::-1], Image.Resampling.BICUBIC)
        canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(scaled)
        matrix = scaling(inner[1] / image.shape[1], inner[0] / image.shape[0], left, top)
        return move(example, layers, matrix, size, picture=canvas, min_visible=0.0)

    return Transform('resize_with_padding', apply, reads=layers.keys, writes=layers.keys, moves=True)


def cut(
    example: Example, layers: Layers, window: Sequence[float], size: tuple[int, int], min_visible: float
) -> Example:
    """Returns the part of an example in a window (top, left, bottom, right; pixels), scaled to `size`.

    Depth is divided by how much larger things seem in the frame.
    """
    top, left, bottom, right = (float(edge) for edge in window)
    image = example[layers.image]
    picture = np.asarray(
        Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    )
    across, down = size[1] / (right - left), size[0] / (bottom - top)
    matrix = scaling(across, down, -left * across, -top * down)
    zoom = float(np.sqrt(image.shape[0] * image.shape[1] / ((right - left) * (bottom - top))))
    return move(example, layers, matrix, size, picture=picture, min_visible=min_visible, zoom=zoom)


def random_window(
    old: tuple[int, int],
    new: tuple[int, int],
    scale: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Returns top, left, bottom and right of a random window in whole pixels."""
    area = old[0] * old[1] * rng.uniform(*scale)
    ratio = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1]))) * new[1] / new[0]
    width = min(old[1], max(1, round(np.sqrt(area * ratio))))
    height = min(old[0], max(1, round(np.sqrt(area / ratio))))
    top, left = int(rng.integers(0, old[0] - height + 1)), int(rng.integers(0, old[1] - width + 1))
    return top, left, top + height, left + width


def scaling(across: float, down: float, left: float, top: float) -> np.ndarray:
    """Returns the map that scales by `across` and `down` and then shifts by `left` and `top`."""
    return np.array([[across, 0.0, left], [0.0, down, top]])


def height_and_width(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Returns a size as two numbers.

    Raises:
      ValueError: it is not one or two positive numbers.
    """
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or min(both) < 1:
        raise ValueError(f'{name}: size must be the side in pixels, or height and width, at least 1, got {size!r}.')
    return both
