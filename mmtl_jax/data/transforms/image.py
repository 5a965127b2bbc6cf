"""Transforms of pictures: `[h, w, 3]` uint8, or float32 in [0, 1]."""

import numpy as np
from PIL import Image

from mmtl_jax.data.transforms.base import Example, Transform, check_rate, is_missing, on_key

# Rec. 601 luma, as PIL and torchvision weigh the channels.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
EDGES = ('longer', 'shorter', 'both')


def resize(
    key: str,
    size: int,
    *,
    fill: int = 255,
    square: bool = True,
    margin: int = 0,
    edge: str = 'longer',
    resample: str = 'bicubic',
) -> Transform:
    """Scales the longer side to `size` pixels; or the shorter one, or both, as published image towers expect.

    Args:
      key: a uint8 picture.
      size: side of the result in pixels.
      fill: colour of what is added, 255 is white.
      square: pad the shorter side around the centre, giving `[size, size, 3]`.
      margin: pixels of `fill` that are left free on each side.
      edge: which side gets `size` pixels: 'longer', 'shorter' or, stretching the picture, 'both'. Nothing is added to
        what 'shorter' and 'both' make; the length of the longer side is rounded down, as torchvision does.
      resample: a filter of PIL: 'bicubic', 'bilinear', 'lanczos', 'box', 'hamming' or 'nearest'.

    Raises:
      ValueError: an unknown edge or filter, or a margin that leaves no pixel or that 'longer' alone has.
    """
    if size - 2 * margin < 1:
        raise ValueError(f'resize: size {size} leaves no pixel inside a margin of {margin}.')
    if edge not in EDGES or (margin and edge != 'longer'):
        raise ValueError(f"resize: edge must be one of {EDGES}, and 'longer' with a margin, got {edge!r}.")
    filters = {entry.name.lower(): entry for entry in Image.Resampling}
    if resample not in filters:
        raise ValueError(f'resize: resample must be one of {", ".join(filters)}, got {resample!r}.')

    def scale(image: np.ndarray, height: int, width: int, reducing_gap: float | None = None) -> np.ndarray:
        picture = Image.fromarray(image).resize((width, height), filters[resample], reducing_gap=reducing_gap)
        return np.asarray(picture)

    def function(image: np.ndarray) -> np.ndarray:
        _check_rgb('resize', image)
        height, width = image.shape[:2]
        if edge == 'both':
            return scale(image, size, size)
        if edge == 'shorter':
            shorter = min(height, width)
            return scale(image, int(size * height / shorter), int(size * width / shorter))
        ratio = (size - 2 * margin) / max(height, width)
        inner = max(1, round(height * ratio)), max(1, round(width * ratio))
        scaled = scale(image, *inner, reducing_gap=3.0)
        if not square:
            return scaled
        canvas = np.full((size, size, image.shape[2]), fill, np.uint8)
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        canvas[top : top + inner[0], left : left + inner[1]] = scaled
        return canvas

    # Without padding every place stays where it was, as a share of the sides.
    return on_key('resize', function, key, moves=edge == 'longer' and square)


def centre_crop(key: str, size: int) -> Transform:
    """Cuts `[size, size]` out of the centre."""

    def function(image: np.ndarray) -> np.ndarray:
        top, left = _room('centre_crop', image, size)
        return image[top // 2 : top // 2 + size, left // 2 : left // 2 + size]

    return on_key('centre_crop', function, key, moves=True)


def random_crop(key: str, size: int, *, pad: int = 0, fill: int = 255) -> Transform:
    """Pads every side by `pad` pixels of `fill` and cuts `[size, size]` out at a random place."""

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = _room('random_crop', image, size - 2 * pad)
        top, left = (int(rng.integers(0, space + 1)) for space in room)
        if not pad:
            return image[top : top + size, left : left + size]
        # Copies the visible part onto a blank picture, which is cheaper than padding all of it.
        canvas = np.full((size, size, image.shape[2]), fill, image.dtype)
        rows, columns = _overlap(top - pad, image.shape[0], size), _overlap(left - pad, image.shape[1], size)
        canvas[rows[1], columns[1]] = image[rows[0], columns[0]]
        return canvas

    return on_key('random_crop', function, key, random=True, moves=True)


def random_resized_crop(
    key: str,
    size: int,
    *,
    scale: tuple[float, float] = (0.5, 1.0),
    aspect: tuple[float, float] = (0.75, 4 / 3),
) -> Transform:
    """Cuts out a random part and scales it to `[size, size]` (bilinear); Szegedy et al., arXiv 1409.4842.

    Args:
      key: a uint8 picture.
      size: side of the result in pixels.
      scale: the least and the largest share of the area that is kept.
      aspect: the least and the largest ratio of width to height.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_rgb('random_resized_crop', image)
        height, width = image.shape[:2]
        area = height * width * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1])))
        crop_width, crop_height = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
        left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
        box = (left, top, left + crop_width, top + crop_height)
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))

    return on_key('random_resized_crop', function, key, random=True, moves=True)


def random_flip(key: str, *, rate: float = 0.5, unless: str | None = None) -> Transform:
    """Mirrors left and right.

    Args:
      key: a picture.
      rate: how often.
      unless: a key whose true value forbids it, such as a flag for writing and other pictures with a direction.
    """
    check_rate('random_flip: rate', rate)

    def apply(example: Example, rng: np.random.Generator) -> Example:
        chosen = rng.random() < rate
        image = example.get(key)
        if not chosen or is_missing(image) or (unless is not None and bool(example.get(unless))):
            return example
        return {**example, key: image[:, ::-1]}

    reads = (key,) if unless is None else (key, unless)
    return Transform('random_flip', apply, reads=reads, writes=(key,), random=True, moves=True)


def colour_jitter(key: str, *, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> Transform:
    """Scales brightness, contrast and saturation by random factors in [1 - x, 1 + x]; gives float32 in [0, 1].

    The three are done in this order, as one linear map of the colours of the picture.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_rgb('colour_jitter', image)
        light, spread, colour = (1.0 + rng.uniform(-amount, amount) for amount in (brightness, contrast, saturation))
        pixels = _unit(image).reshape(-1, 3)
        # A sum over the long axis of a narrow array, which is much faster as a product.
        grey = float(np.ones(len(pixels), np.float32) @ pixels @ LUMA) / len(pixels) * light
        # saturation(contrast(brightness(x))) = x @ matrix + offset
        matrix = light * spread * (colour * np.eye(3, dtype=np.float32) + (1 - colour) * LUMA[:, None])
        jittered = pixels @ matrix.astype(np.float32)
        jittered += np.float32((1 - spread) * grey)
        np.minimum(jittered, np.float32(1), out=jittered)
        return np.maximum(jittered, np.float32(0), out=jittered).reshape(image.shape)

    return on_key('colour_jitter', function, key, random=True)


def random_affine(
    key: str,
    *,
    degrees: float = 10.0,
    scale: tuple[float, float] = (0.9, 1.1),
    translate: float = 0.05,
    fill: int = 255,
) -> Transform:
    """Rotates, scales and shifts around the centre (bilinear), keeping the size of the picture.

    Args:
      key: a uint8 picture.
      degrees: the largest rotation to either side.
      scale: the least and the largest zoom.
      translate: the largest shift, as a share of the side.
      fill: colour of what comes into view.
    """

    def function(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_rgb('random_affine', image)
        height, width = image.shape[:2]
        angle, zoom = np.deg2rad(rng.uniform(-degrees, degrees)), rng.uniform(*scale)
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        x, y = width / 2, height / 2
        shift = rng.uniform(-translate, translate, size=2) * (width, height)
        # PIL wants the map from the new picture back to the old one.
        back = (cos, sin, x - cos * (x + shift[0]) - sin * (y + shift[1]))
        back += (-sin, cos, y + sin * (x + shift[0]) - cos * (y + shift[1]))
        moved = Image.fromarray(image).transform(
            (width, height), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=(fill,) * 3
        )
        return np.asarray(moved)

    return on_key('random_affine', function, key, random=True, moves=True)


def to_float(key: str) -> Transform:
    """Scales a uint8 picture to float32 in [0, 1]; the collation does so anyway."""
    return on_key('to_float', _unit, key)


def to_rgb(key: str) -> Transform:
    """Gives a grey picture, `[h, w]` or `[h, w, 1]`, three equal channels."""

    def function(image: np.ndarray) -> np.ndarray:
        image = image[..., None] if image.ndim == 2 else image
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image

    return on_key('to_rgb', function, key)


def _check_rgb(name: str, image: np.ndarray) -> None:
    """Raises a `ValueError` unless the picture has three channels."""
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'{name} needs a picture of shape [h, w, 3], got {image.shape}; use to_rgb before it.')


def _unit(image: np.ndarray) -> np.ndarray:
    """Returns a picture as float32 in [0, 1]."""
    return image.astype(np.float32) * np.float32(1 / 255) if image.dtype == np.uint8 else image


def _room(name: str, image: np.ndarray, size: int) -> tuple[int, int]:
    """Returns how far a crop of `size` pixels can move down and right."""
    room = image.shape[0] - size, image.shape[1] - size
    if min(room) < 0:
        raise ValueError(f'{name}: a picture of {image.shape[0]} x {image.shape[1]} pixels is too small for {size}.')
    return room


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Returns the part of `length` pixels that the window `start : start + size` sees, and its place in the window."""
    low, high = max(0, start), min(length, start + size)
    return slice(low, high), slice(low - start, high - start)
