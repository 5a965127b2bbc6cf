"""Corruptions of pictures `[h, w]`, `[h, w, 1]` or `[h, w, 3]` of uint8; after Hendrycks and Dietterich, 1903.12261."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from mmtl_jax.data.transforms.base import Transform
from mmtl_jax.data.transforms.corruptions import Corrupt, corruption


def image_noise(key: str, level: float = 0.5) -> Transform:
    """Adds Gaussian noise to every pixel, its deviation `level` times the range from black to white; clipped to it.

    Scaling a picture down averages the noise away: in a large picture a level does less harm than in a small one.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(image.shape, np.float32)
        return _whole(image + np.float32(255 * level) * noise)

    return _corruption('image_noise', function, key, level)


def image_blur(key: str, level: float = 0.5) -> Transform:
    """Blurs with a Gaussian whose deviation is `level` times a tenth of the longer side."""

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        radius = level * max(image.shape[:2]) / 10
        return _by_pil(image, lambda picture: picture.filter(ImageFilter.GaussianBlur(radius)))

    return _corruption('image_blur', function, key, level)


def image_contrast(key: str, level: float = 0.5) -> Transform:
    """Moves every pixel towards the mean of the picture by the share `level`; at 1 nothing else is left."""

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        mean = image.mean(dtype=np.float64)
        return _whole(mean + (1 - level) * (image - mean))

    return _corruption('image_contrast', function, key, level)


def image_rotation(key: str, level: float = 0.5) -> Transform:
    """Rotates around the centre by `level` times 180 degrees to the left or the right (bilinear), keeping the size.

    What comes into view has the median colour of the picture's edge.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = 180 * level * (1 if rng.random() < 0.5 else -1)
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).reshape(-1, *image.shape[2:])
        fill = np.atleast_1d(np.median(edge, axis=0)).astype(int)
        colour = tuple(fill.tolist()) if len(fill) > 1 else int(fill[0])
        return _by_pil(image, lambda p: p.rotate(angle, Image.Resampling.BILINEAR, fillcolor=colour))

    return _corruption('image_rotation', function, key, level)


def image_occlusion(key: str, level: float = 0.5) -> Transform:
    """Covers the share `level` of the area with a grey rectangle of the picture's form, anywhere in it.

    After the occlusion test of Zeiler and Fergus, 1311.2901; at 1 nothing is to be seen.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = [max(1, round(side * level**0.5)) for side in image.shape[:2]]
        places = rng.random(2)
        top, left = (int(p * (side - s + 1)) for p, side, s in zip(places, image.shape[:2], size, strict=True))
        covered = image.copy()
        covered[top : top + size[0], left : left + size[1]] = 127
        return covered

    return _corruption('image_occlusion', function, key, level)


def _corruption(name: str, function: Corrupt, key: str, level: float) -> Transform:
    return corruption(name, function, key, level, fits=_is_picture, expected='a picture [h, w(, 1 or 3)] of uint8')


def _is_picture(value: Any) -> bool:
    shape = np.shape(value)
    return getattr(value, 'dtype', None) == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels as uint8, what leaves the range cut to it rather than wrapped around."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _by_pil(image: np.ndarray, function: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Returns what a function of PIL makes of a picture, in the picture's shape."""
    grey = image.ndim == 3 and image.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
    return np.asarray(function(picture)).reshape(image.shape)
