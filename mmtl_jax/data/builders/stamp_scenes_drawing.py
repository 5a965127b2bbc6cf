"""Draws one scene of `stamp_scenes`: a background, sprites over each other, and what is left to be seen of each."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from mmtl_jax.data.builders.stamp_scenes_sprites import OPAQUE, Sprite

BACKGROUNDS = ('plain', 'gradient', 'texture', 'blurred')
# Where the centre of an object may be, as a share of the side: its edge may leave the picture, most of it not.
CENTRES = (0.15, 0.85)
# Fewer visible pixels than this are no object that could be found.
FEWEST_PIXELS = 16
IGNORED = 255


@dataclasses.dataclass(frozen=True)
class Placed:
    """One sprite in a scene.

    Attributes:
      sprite: what it shows.
      visible: `[size, size]` bool, the pixels in which it is seen.
      share: how much of its opaque pixels these are, those outside of the picture counted as hidden.
    """

    sprite: Sprite
    visible: np.ndarray
    share: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """ymin, xmin, ymax, xmax of what is seen, in pixels, the ends excluded."""
        rows, columns = (np.flatnonzero(self.visible.any(axis=axis)) for axis in (1, 0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    @property
    def area(self) -> int:
        """The number of pixels in which it is seen."""
        return int(self.visible.sum())


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
      image: `[size, size, 3]` uint8.
      objects: those of which enough is seen, the farthest back first.
      hidden: `[size, size]` bool: what is seen of the others.
    """

    image: np.ndarray
    objects: tuple[Placed, ...]
    hidden: np.ndarray

    def instances(self) -> np.ndarray:
        """Returns `[size, size]` uint8: n where object number n - 1 is seen, 0 elsewhere."""
        mask = np.zeros(self.hidden.shape, np.uint8)
        for number, placed in enumerate(self.objects, 1):
            mask[placed.visible] = number
        return mask

    def classes(self, categories: Sequence[str]) -> np.ndarray:
        """Returns `[size, size]` uint8: 0 background, then the categories from 1 on, 255 for unlabelled objects."""
        mask = np.where(self.hidden, np.uint8(IGNORED), np.uint8(0))
        for placed in self.objects:
            mask[placed.visible] = categories.index(placed.sprite.category) + 1
        return mask


def draw_scene(
    sprites: Mapping[str, Sequence[Sprite]],
    rng: np.random.Generator,
    *,
    image_size: int,
    max_objects: int,
    sizes: tuple[float, float],
    max_degrees: float,
    min_visible: float,
) -> Scene:
    """Returns a scene with at least one object, all its choices drawn from `rng`.

    Every category is as likely as any other, and within it every sprite.

    Args:
      sprites: category -> sprites.
      rng: of everything.
      image_size: side of the picture in pixels.
      max_objects: from 1 to this many sprites are pasted.
      sizes: the least and the largest longer side of an object before it is turned, as a share of the picture's side;
        drawn evenly on a logarithmic scale.
      max_degrees: the largest rotation to either side.
      min_visible: an object of which a smaller share is seen is no object, and its pixels in the class mask are 255.
    """
    categories = list(sprites)
    while True:
        canvas = background(sprites, image_size, rng)
        layers: list[tuple[Sprite, np.ndarray, int]] = []
        for _ in range(int(rng.integers(1, max_objects + 1))):
            members = sprites[categories[rng.integers(len(categories))]]
            sprite = members[rng.integers(len(members))]
            turned = turn(sprite, image_size * math.exp(rng.uniform(*np.log(sizes))), max_degrees, rng)
            layers.append((sprite, *paste(canvas, turned, rng.uniform(*CENTRES, size=2) * image_size)))
        placed = visible_parts(layers)
        enough = [entry.share >= min_visible and entry.area >= FEWEST_PIXELS for entry in placed]
        if any(enough):
            hidden = np.zeros((image_size, image_size), bool)
            for entry, labelled in zip(placed, enough, strict=True):
                hidden |= entry.visible & (not labelled)
            seen = [entry for entry, labelled in zip(placed, enough, strict=True) if labelled]
            return Scene(np.asarray(canvas), tuple(seen), hidden)


def turn(sprite: Sprite, longest_side: float, max_degrees: float, rng: np.random.Generator) -> Image.Image:
    """Returns a sprite mirrored or not, scaled and rotated at random, RGBA."""
    picture = sprite.picture
    if sprite.mirrored and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = longest_side / max(picture.size)
    width, height = (max(2, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return picture.rotate(rng.uniform(-max_degrees, max_degrees), Image.Resampling.BICUBIC, expand=True)


def paste(canvas: Image.Image, picture: Image.Image, centre: np.ndarray) -> tuple[np.ndarray, int]:
    """Lays an RGBA picture over `canvas`; returns where it is opaque, `[size, size]`, and its opaque pixels in all."""
    top, left = (round(float(c) - side / 2) for c, side in zip(centre, reversed(picture.size), strict=True))
    canvas.paste(picture, (left, top), picture)
    alpha = Image.new('L', canvas.size)
    alpha.paste(picture.getchannel('A'), (left, top))
    return np.asarray(alpha) >= OPAQUE, int((np.asarray(picture.getchannel('A')) >= OPAQUE).sum())


def visible_parts(layers: Sequence[tuple[Sprite, np.ndarray, int]]) -> list[Placed]:
    """Returns what later sprites leave of each (sprite, opaque pixels in the picture, their number anywhere)."""
    covered = np.zeros_like(layers[0][1])
    placed = []
    for sprite, opaque, total in reversed(layers):
        visible = opaque & ~covered
        covered = covered | opaque
        placed.append(Placed(sprite, visible, float(visible.sum()) / max(total, 1)))
    return placed[::-1]


def background(sprites: Mapping[str, Sequence[Sprite]], size: int, rng: np.random.Generator) -> Image.Image:
    """Returns a picture, `size` pixels wide and high: one colour, a gradient, a texture, or blurred sprites."""
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    colours = rng.uniform(40, 255, size=(2, 3))
    if kind == 'plain':
        pixels = np.broadcast_to(colours[0], (size, size, 3))
    elif kind == 'gradient':
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[:size, :size] / max(size - 1, 1) - 0.5
        along = np.clip(0.5 + (rows * np.sin(angle) + columns * np.cos(angle)) / 1.4, 0, 1)[..., None]
        pixels = (1 - along) * colours[0] + along * colours[1]
    elif kind == 'texture':
        along = noise(size, rng)[..., None]
        pixels = (1 - along) * colours[0] + along * colours[1]
    else:
        return blurred(sprites, size, colours[0], rng)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `[size, size]` from 0 to 1: random grids of 2 to 32 cells, the finer ones weaker, added up."""
    total = np.zeros((size, size))
    strength = rng.uniform(0.4, 0.9)
    for octave in range(1, 6):
        grid = Image.fromarray(rng.random((2**octave, 2**octave), np.float32))
        total += strength**octave * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def blurred(
    sprites: Mapping[str, Sequence[Sprite]], size: int, colour: np.ndarray, rng: np.random.Generator
) -> Image.Image:
    """Returns a few sprites of the same split, enlarged and blurred until nothing can be told of them."""
    canvas = Image.new('RGB', (size, size), tuple(int(value) for value in colour))
    everything = [sprite for members in sprites.values() for sprite in members]
    for _ in range(3):
        picture = everything[rng.integers(len(everything))].picture
        scale = size * rng.uniform(1.0, 2.0) / max(picture.size)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BILINEAR)
        left, top = (int(rng.integers(-side, size)) for side in picture.size)
        canvas.paste(picture, (left, top), picture)
    return canvas.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.06, 0.12)))
