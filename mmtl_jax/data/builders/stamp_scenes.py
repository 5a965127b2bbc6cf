"""The TFDS data set `stamp_scenes`: stamps pasted on backgrounds, with boxes, masks and a caption."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmtl_jax.data.builders import stamps_index, stamps_package
from mmtl_jax.data.builders.numbered import SPLITS, Numbered
from mmtl_jax.data.builders.stamp_scenes_drawing import Placed, Scene, draw_scene
from mmtl_jax.data.builders.stamp_scenes_sprites import by_category, read_sprites

NUMERALS = ('no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')

DESCRIPTION = """\
Scenes made of Tux Paint's stamps: real sprites with true alpha masks, at random places, scaled and rotated, over each
other and over plain, graded, textured and blurred backgrounds. Boxes, instance and class masks, and a caption.

The features have the names and types of COCO and PASCAL VOC in TFDS. The sprites of the three splits are disjoint: the
split is that of `stamps`, in which no caption, recording or picture crosses.
"""


@dataclasses.dataclass(eq=False)
class StampScenesConfig(tfds.core.BuilderConfig):
    """The numbers that define one data set of scenes.

    Attributes:
      num_train: number of training scenes.
      num_validation: number of validation scenes.
      num_test: number of test scenes.
      seed: another seed is another data set.
      image_size: side of the square picture in pixels.
      max_objects: a scene is made of 1 to this many sprites.
      min_size: the least longer side of an object, as a share of the picture's side.
      max_size: the largest.
      max_degrees: the largest rotation to either side.
      min_visible: an object of which a smaller share is seen has no label, and its pixels are 255 in the class mask.
    """

    num_train: int = 2000
    num_validation: int = 300
    num_test: int = 500
    seed: int = 0
    image_size: int = 96
    max_objects: int = 6
    min_size: float = 0.2
    max_size: float = 0.6
    max_degrees: float = 30.0
    min_visible: float = 0.25

    def __post_init__(self):
        for field in ('num_train', 'num_validation', 'num_test', 'seed', 'max_degrees'):
            if getattr(self, field) < 0:
                raise ValueError(f'stamp_scenes: {field} must be at least 0, got {getattr(self, field)}.')
        if self.image_size < 32:
            raise ValueError(f'stamp_scenes: image_size must be at least 32 pixels, got {self.image_size}.')
        if not 1 <= self.max_objects < 255:
            raise ValueError(f'stamp_scenes: max_objects must be between 1 and 254, got {self.max_objects}.')
        if not 0 < self.min_size <= self.max_size <= 1:
            raise ValueError(
                f'stamp_scenes: expected 0 < min_size <= max_size <= 1, got {self.min_size} and {self.max_size}.'
            )
        if not 0 <= self.min_visible <= 0.5:
            raise ValueError(f'stamp_scenes: min_visible must be between 0 and 0.5, got {self.min_visible}.')


class StampScenes(Numbered):
    """Real sprites pasted into scenes, for detection, segmentation, classification and captions at once.

    Keys of an example:
      `image`: `[image_size, image_size, 3]` uint8.
      `image/filename`, `id`: the scene's name.
      `objects`: a sequence, the farthest back first: `bbox` (ymin, xmin, ymax, xmax from 0 to 1, of what is seen),
        `label` (12 categories), `area` (pixels that are seen), `id` (from 1 on, the value in the instance mask),
        `is_crowd` (never), `visible` (the share that is seen), `stamp` (which of the 950).
      `labels`: the categories in the scene, sorted.
      `label`: the category of the object that covers most.
      `segmentation_mask`: `[image_size, image_size, 1]` uint8: 0 background, categories from 1 on, 255 where an object
        is seen that has no label.
      `instance_mask`: the same shape: `id` of the object, 0 elsewhere.
      `caption`: 'a tiger left of a red car and two more', of the two objects that cover most.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'Sprites of tuxpaint-stamps-default 2022.06.04-1.'}
    CONFIG = StampScenesConfig
    MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put {stamps_package.DEB} here, where neither apt nor an installed copy is at hand.'

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        category = tfds.features.ClassLabel(names=list(stamps_index.CATEGORIES))
        mask = tfds.features.Image(shape=(size, size, 1), encoding_format='png')
        objects = {
            'bbox': tfds.features.BBoxFeature(),
            'label': category,
            'area': np.int64,
            'id': np.int64,
            'is_crowd': np.bool_,
            'visible': np.float32,
            'stamp': np.int32,
        }
        features = {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=(size, size, 3), encoding_format='png'),
            'image/filename': tfds.features.Text(),
            'objects': tfds.features.Sequence(objects),
            'labels': tfds.features.Sequence(category),
            'label': category,
            'segmentation_mask': mask,
            'instance_mask': mask,
            'caption': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage='https://tuxpaint.org/stamps/',
            license='GPL-2.0 (the stamps; copyright 2002-2022 by Bill Kendrick and the Tux Paint contributors)',
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """Returns one generator for each split.

        Raises:
          ValueError: the package of the stamps cannot be had.
        """
        download_dir = pathlib.Path(dl_manager.download_dir)
        try:
            manual_dir = pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS says so where nothing was put there.
            manual_dir = download_dir / 'manual'
        # The folder of the data set `stamps`, so that the package is unpacked once for both.
        root = stamps_package.obtain(download_dir / 'stamps', manual_dir)
        sprites = read_sprites(root, self.builder_config.image_size)
        return {name: self._generate_examples(name, size, sprites[name]) for name, size in self.split_sizes().items()}

    def _generate_examples(self, split: str, size: int, sprites: Sequence) -> Iterator[tuple[str, dict[str, Any]]]:
        config, members = self.builder_config, by_category(sprites)
        if not members:
            raise ValueError(f'stamp_scenes: no stamp of the split {split!r} has an alpha mask.')
        for number in range(size):
            scene = draw_scene(
                members,
                np.random.default_rng([config.seed, SPLITS.index(split), number]),
                image_size=config.image_size,
                max_objects=config.max_objects,
                sizes=(config.min_size, config.max_size),
                max_degrees=config.max_degrees,
                min_visible=config.min_visible,
            )
            name = f'{split}-{number:06d}'
            yield name, {'id': name, 'image/filename': f'{name}.png', **describe(scene)}


def describe(scene: Scene) -> dict[str, Any]:
    """Returns the features of a scene, but for its name."""
    size = len(scene.hidden)
    objects = [
        {
            'bbox': tfds.features.BBox(*(edge / size for edge in placed.box)),
            'label': placed.sprite.category,
            'area': placed.area,
            'id': number,
            'is_crowd': False,
            'visible': placed.share,
            'stamp': placed.sprite.number,
        }
        for number, placed in enumerate(scene.objects, 1)
    ]
    return {
        'image': Image.fromarray(scene.image),
        'objects': objects,
        'labels': sorted({placed.sprite.category for placed in scene.objects}),
        'label': max(scene.objects, key=lambda placed: placed.area).sprite.category,
        'segmentation_mask': Image.fromarray(scene.classes(stamps_index.CATEGORIES)),
        'instance_mask': Image.fromarray(scene.instances()),
        'caption': caption(scene.objects),
    }


def caption(objects: Sequence[Placed]) -> str:
    """Returns the two objects that cover most and how they lie to each other, and how many more there are."""
    first, *others = sorted(objects, key=lambda placed: -placed.area)
    words = first.sprite.name
    if others:
        words += f' {relation(first.box, others[0].box)} {others[0].sprite.name}'
    more = len(others) - 1
    if more > 0:
        words += f' and {NUMERALS[more] if more < len(NUMERALS) else more} more'
    return words


def relation(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """Returns where a box lies, seen from another: along the axis on which their centres are farther apart."""
    down = (one[0] + one[2] - other[0] - other[2]) / 2
    right = (one[1] + one[3] - other[1] - other[3]) / 2
    if abs(right) >= abs(down):
        return 'left of' if right < 0 else 'right of'
    return 'above' if down < 0 else 'below'
