"""The sprites of `stamp_scenes`: stamps with a true alpha mask, cut out and shrunk, by the split of `stamps`."""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmtl_jax.data.builders import stamps_index, stamps_media

# Alpha from which on a pixel belongs to the object.
OPAQUE = 128
# The least and the largest share of a sprite's own rectangle that it may fill: a full one has no mask, only a frame.
FILLED = (0.02, 0.97)
# Words of a caption.
LONGEST_NAME = 6


@dataclasses.dataclass(frozen=True)
class Sprite:
    """One cut-out picture.

    Attributes:
      stem: of the stamp.
      number: of the stamp among the 950, as in `stamps`.
      category: one of `stamps_index.CATEGORIES`.
      name: the beginning of its English caption, such as 'a tiger'.
      mirrored: whether it may be mirrored.
      picture: RGBA, no larger than it needs to be, nothing transparent around it.
    """

    stem: str
    number: int
    category: str
    name: str
    mirrored: bool
    picture: Image.Image


def read_sprites(root: pathlib.Path, longest_side: int) -> dict[str, list[Sprite]]:
    """Returns split -> its sprites; half a minute for the real package.

    The groups of `stamps`, which share a caption, a recording or a picture, stay in one split.

    Args:
      root: the stamps package.
      longest_side: pixels; larger pictures are shrunk to it.
    """
    stamps = stamps_index.read_stamps(root)
    split = stamps_index.split_stamps(stamps, stamps_index.group_stamps(root, stamps))
    sprites: dict[str, list[Sprite]] = {name: [] for name in stamps_index.SPLITS}
    # Threads suffice: the decoders work outside the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = pool.map(
            lambda stamp: cut_out(stamps_media.read_picture(root / stamp.picture, longest_side), longest_side), stamps
        )
        for number, (stamp, picture) in enumerate(zip(stamps, pictures, strict=True)):
            if picture is not None:
                name = short_name(stamp.english, stamp.stem)
                mirrored = not stamp.flags[stamps_index.FLAGS.index('nomirror')]
                sprite = Sprite(stamp.stem, number, stamp.category, name, mirrored, picture)
                sprites[split[stamp.stem]].append(sprite)
    return sprites


def cut_out(picture: Image.Image, longest_side: int) -> Image.Image | None:
    """Returns an RGBA picture without what is transparent around it, shrunk; None where the mask is all or nothing."""
    opaque = picture.getchannel('A').point(lambda alpha: 255 * (alpha >= OPAQUE))
    box = opaque.getbbox()
    if box is None or not FILLED[0] <= np.asarray(opaque.crop(box)).mean() / 255 <= FILLED[1]:
        return None
    picture = picture.crop(box)
    # Shrinks only. Pillow weighs colours by alpha, so that those of transparent pixels do not bleed into the edges.
    picture.thumbnail((longest_side, longest_side), Image.Resampling.BOX, reducing_gap=None)
    return picture


def short_name(english: str, stem: str) -> str:
    """Returns the first part of a caption in lower case: 'a tiger' of 'A tiger. It is big.'.

    A long one tells a story, and the name of the file takes its place: 'a cow' of 'animals/cow_2'.
    """
    first = stamps_index.normalise(re.split(r'[.!?,;:(—]', english.strip(), maxsplit=1)[0])
    if 0 < len(first.split()) <= LONGEST_NAME:
        return first
    words = stamps_index.normalise(re.sub('[^a-zA-Z]+', ' ', stem.rpartition('/')[2]))
    return f'{"an" if words[0] in "aeiou" else "a"} {words}' if words else 'something'


def by_category(sprites: Sequence[Sprite]) -> dict[str, list[Sprite]]:
    """Returns category -> its sprites, the categories that have any, in the order of `stamps_index.CATEGORIES`."""
    found = {category: [s for s in sprites if s.category == category] for category in stamps_index.CATEGORIES}
    return {category: members for category, members in found.items() if members}
