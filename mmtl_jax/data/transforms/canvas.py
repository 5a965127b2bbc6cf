"""A picture of one thing becomes a picture in which it has a place."""

import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmtl_jax.data.transforms.base import Example, Transform, is_missing
from mmtl_jax.data.transforms.spatial import height_and_width


def place_on_canvas(
    key: str,
    size: int | Sequence[int],
    *,
    label: str | None = None,
    out: str = 'objects',
    scale: tuple[float, float] = (0.5, 1.0),
    noise: int = 40,
    seed: int | None = None,
) -> Transform:
    """Pastes a picture, scaled, at a random place of a larger canvas of noise; its box is known then.

    It turns a data set of classes into one of boxes: CIFAR-10 of 32 pixels on a canvas of 64. The canvas has one random
    colour with noise on it.

    Args:
      key: a uint8 picture, `[h, w, 3]`, which becomes the canvas.
      size: side of the canvas in pixels, or its height and width.
      label: the key of its class; None for class 0.
      out: the beginning of the new keys, `<out>/bbox` `[1, 4]` and `<out>/label` `[1]`.
      scale: the least and the largest zoom, as far as the picture still fits.
      noise: how far pixels of the canvas are from its colour at most.
      seed: None draws anew on each visit, for `augment`. With a number the place is a function of it and the picture,
        for `steps` and `eval_steps`, which must not be random.

    Raises:
      ValueError: a size below 1, or a zoom that is not positive.
    """
    size = height_and_width('place_on_canvas', size)
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f'place_on_canvas: scale must be the least and the largest zoom, above 0, got {tuple(scale)}.')
    boxes, labels = f'{out}/bbox', f'{out}/label'

    def place(example: Example, rng: np.random.Generator | None) -> Example:
        image = example.get(key)
        if is_missing(image):
            return {**example, boxes: None, labels: None}
        rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(image))]) if rng is None else rng
        most = min(side / part for side, part in zip(size, image.shape[:2], strict=True))
        zoom = min(rng.uniform(*scale), most)
        height, width = (max(1, round(part * zoom)) for part in image.shape[:2])
        top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(size, (height, width), strict=True))
        canvas = rng.integers(0, 256, size=3) + rng.integers(-noise, noise + 1, size=(*size, 3))
        canvas = np.clip(canvas, 0, 255).astype(np.uint8)
        scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        canvas[top : top + height, left : left + width] = np.asarray(scaled)
        edges = np.array([[top, left, top + height, left + width]]) / (*size, *size)
        number = 0 if label is None else int(example[label])
        return {**example, key: canvas, boxes: edges.astype(np.float32), labels: np.array([number])}

    reads, writes = (key,) if label is None else (key, label), (key, boxes, labels)
    if seed is None:
        return Transform('place_on_canvas', place, reads=reads, writes=writes, random=True, moves=True)
    return Transform('place_on_canvas', lambda example: place(example, None), reads=reads, writes=writes, moves=True)
