"""Generated scenes in which it is known which modality tells which target."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmtl_jax.data.builders.numbered import SPLITS, Numbered

SHAPES = ('circle', 'square', 'triangle', 'cross', 'ring', 'bar')
COLOURS = {
    'red': (220, 40, 40),
    'green': (40, 160, 60),
    'blue': (50, 70, 220),
    'yellow': (235, 200, 30),
    'purple': (150, 50, 170),
}
MATERIALS = ('wooden', 'glass', 'paper')
TIMBRES = ('pure', 'hollow', 'bright')
# Amplitudes of the harmonics 1, 2, 3, 4, 5.
HARMONICS = {
    'pure': (1.0, 0.0, 0.0, 0.0, 0.0),
    'hollow': (1.0, 0.0, 0.5, 0.0, 0.3),
    'bright': (1.0, 0.7, 0.5, 0.4, 0.3),
}
TONES = 'abcdefgh'
FREQUENCIES = 220.0 * 2.0 ** (np.array([0, 3, 5, 7, 10, 12, 15, 17]) / 12.0)
TEMPLATES = ('a {} {} {} {}', 'here is a {} {} {} {}', 'look at the {} {} {} {}')
PLACES = ('in the garden', 'on the road', 'in the kitchen', 'at the table')
INDOORS = (False, False, True, True)
ATTRIBUTES = ('several', 'indoors', 'long', 'positive')
SAMPLE_RATE = 8000
MAX_COUNT = 3
MAX_TONES = 6
NUM_CELLS = 6


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
    """The numbers that define one generated data set; they are part of its name, so that sizes never collide.

    Attributes:
      num_train: number of training examples.
      num_validation: number of validation examples.
      num_test: number of test examples.
      seed: another seed is another data set.
      image_size: side of the square picture in pixels.
      missing_rate: probability that a modality is missing; one modality of an example is always kept.
      missing_label_rate: probability that a target is missing, for each target of each example.
    """

    num_train: int = 2000
    num_validation: int = 500
    num_test: int = 500
    seed: int = 0
    image_size: int = 32
    missing_rate: float = 0.0
    missing_label_rate: float = 0.0

    def __post_init__(self):
        for field in ('num_train', 'num_validation', 'num_test', 'seed'):
            if getattr(self, field) < 0:
                raise ValueError(f'synthetic: {field} must be at least 0, got {getattr(self, field)}.')
        for field in ('missing_rate', 'missing_label_rate'):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ValueError(f'synthetic: {field} must be between 0 and 1, got {getattr(self, field)}.')
        if self.image_size < 16:
            raise ValueError(f'synthetic: image_size must be at least 16 pixels, got {self.image_size}.')


class Synthetic(Numbered):
    """Scenes of coloured shapes with a caption, a tone sequence and a table row.

    Inputs:
      `image`: `[image_size, image_size, 3]` uint8, one to three equal shapes of one colour on white.
      `caption`: for instance 'look at the wooden red circle on the road'.
      `speech`: waveform, int16, 8 kHz, two to six tones of 40 to 80 ms.
      `table`: six float32 cells.

    Which modality tells which target:

    | target | kind | told by | relation |
    |---|---|---|---|
    | `shape` | 6 classes | image, caption, speech (first tone) | redundant |
    | `colour` | 5 classes | image, caption, speech (second tone) | redundant |
    | `group` | integer | image, caption, speech | redundant: shape and colour together, for retrieval |
    | `count` | 3 classes | image | unique |
    | `material` | 3 classes | caption | unique |
    | `timbre` | 3 classes | speech | unique |
    | `transcript` | string over 'abcdefgh', one symbol a tone, for CTC | speech | unique |
    | `amount` | number: cell 1 - 2 cell 2 + cell 3 squared / 2 | table | unique |
    | `parity` | 2 classes: (count is even) xor (cell 0 > 0) | image and table | synergy: neither alone tells anything |
    | `total` | number: count + number of tones | image and speech | synergy: a sum, each alone tells a part |
    | `attributes` | 4 bits: several shapes, indoors, more than three tones, cell 1 > 0 | one bit a modality | unique |

    A missing modality is a picture of one pixel, an empty caption, a waveform of length 0 or a table of NaN. A missing
    label is -1 (classes and attributes), NaN (numbers) or an empty string (transcript). Cells 4 and 5 are noise.
    Everything is a function of (seed, split, index); nothing is downloaded.
    """

    VERSION = tfds.core.Version('1.0.0')
    CONFIG = SyntheticConfig

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns the features of one example."""
        size = self.builder_config.image_size
        features = tfds.features.FeaturesDict(
            {
                'id': tfds.features.Text(),
                'image': tfds.features.Image(shape=(None, None, 3), doc=f'{size} x {size}, 1 x 1 when missing'),
                'caption': tfds.features.Text(),
                'speech': tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding='bytes'),
                'table': tfds.features.Tensor(shape=(NUM_CELLS,), dtype=np.float32),
                'shape': tfds.features.ClassLabel(names=SHAPES),
                'colour': tfds.features.ClassLabel(names=list(COLOURS)),
                'group': np.int64,
                'count': tfds.features.ClassLabel(names=['one', 'two', 'three']),
                'material': tfds.features.ClassLabel(names=MATERIALS),
                'timbre': tfds.features.ClassLabel(names=TIMBRES),
                'transcript': tfds.features.Text(),
                'amount': np.float32,
                'parity': tfds.features.ClassLabel(names=['equal', 'different']),
                'total': np.float32,
                'attributes': tfds.features.Tensor(shape=(len(ATTRIBUTES),), dtype=np.int32),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=type(self).__doc__, features=features)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        """Returns one generator for each split; nothing is downloaded."""
        del dl_manager
        return {name: self._generate_examples(name, size) for name, size in self.split_sizes().items()}

    def _generate_examples(self, split: str, size: int) -> Iterator[tuple[str, dict]]:
        """Yields the examples of one split."""
        for index in range(size):
            example = make_example(self.builder_config, split, index)
            yield example['id'], {**example, 'image': Image.fromarray(example['image'])}


def make_example(config: SyntheticConfig, split: str, index: int) -> dict[str, Any]:
    """Returns example `index` of `split`; the image is a uint8 array."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    shape, colour = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLOURS)))
    material, timbre, place = (int(rng.integers(n)) for n in (len(MATERIALS), len(TIMBRES), len(PLACES)))
    count = int(rng.integers(1, MAX_COUNT + 1))
    free_tones = rng.integers(len(TONES), size=rng.integers(0, MAX_TONES - 1))
    tones = [shape, colour, *(int(tone) for tone in free_tones)]
    table = rng.normal(size=NUM_CELLS).astype(np.float32)
    words = (MATERIALS[material], list(COLOURS)[colour], SHAPES[shape], PLACES[place])
    inputs = {
        'image': draw_scene(SHAPES[shape], list(COLOURS.values())[colour], count, config.image_size, rng),
        'caption': TEMPLATES[rng.integers(len(TEMPLATES))].format(*words),
        'speech': play_tones(tones, TIMBRES[timbre], rng),
        'table': table,
    }
    targets = {
        'shape': shape,
        'colour': colour,
        'group': shape * len(COLOURS) + colour,
        'count': count - 1,
        'material': material,
        'timbre': timbre,
        'transcript': ''.join(TONES[tone] for tone in tones),
        'amount': float(table[1] - 2.0 * table[2] + 0.5 * table[3] ** 2),
        'parity': int((count % 2 == 0) != (table[0] > 0)),
        'total': float(count + len(tones)),
        'attributes': np.array([count > 1, INDOORS[place], len(tones) > 3, table[1] > 0], np.int32),
    }
    dropped = rng.random(len(inputs)) < config.missing_rate
    dropped[rng.integers(len(inputs))] = False
    unlabelled = rng.random(len(targets)) < config.missing_label_rate
    nothing = {
        'image': np.full((1, 1, 3), 255, np.uint8),
        'caption': '',
        'speech': np.zeros(0, np.int16),
        'table': np.full(NUM_CELLS, np.nan, np.float32),
        'transcript': '',
        'amount': np.nan,
        'total': np.nan,
        'attributes': np.full(len(ATTRIBUTES), -1, np.int32),
    }
    example = {'id': f'{split}-{index:06d}'}
    example |= {key: nothing[key] if gone else inputs[key] for key, gone in zip(inputs, dropped, strict=True)}
    labels = zip(targets.items(), unlabelled, strict=True)
    example |= {key: nothing.get(key, -1) if gone else label for (key, label), gone in labels}
    return example


def draw_scene(shape: str, colour: tuple[int, int, int], count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `[size, size, 3]` uint8: `count` shapes in different quarters of a white picture."""
    image = np.full((size, size, 3), 255, np.uint8)
    image -= rng.integers(0, 12, size=image.shape, dtype=np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for quarter in rng.permutation(4)[:count]:
        radius = size * rng.uniform(0.15, 0.22)
        centre = (np.array(divmod(int(quarter), 2)) * 0.5 + rng.uniform(0.23, 0.27, size=2)) * size
        y, x = (rows - centre[0]) / radius, (columns - centre[1]) / radius
        distance = np.hypot(x, y)
        inside = {
            'circle': distance < 1,
            'square': np.maximum(abs(x), abs(y)) < 0.85,
            'triangle': (y < 0.8) & (y > 2 * abs(x) - 1),
            'cross': (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
            'ring': (distance < 1) & (distance > 0.55),
            'bar': (abs(y) < 0.35) & (abs(x) < 1),
        }[shape]
        image[inside] = colour
    return image


def play_tones(tones: list[int], timbre: str, rng: np.random.Generator) -> np.ndarray:
    """Returns an int16 waveform at `SAMPLE_RATE`; each tone fades in and out, so equal neighbours are told apart."""
    parts = []
    for tone in tones:
        length = int(SAMPLE_RATE * rng.uniform(0.04, 0.08))
        phase = 2 * np.pi * FREQUENCIES[tone] * rng.uniform(0.99, 1.01) / SAMPLE_RATE * np.arange(length)
        wave = sum(amplitude * np.sin(n * phase) for n, amplitude in enumerate(HARMONICS[timbre], 1) if amplitude)
        parts.append(wave / np.abs(wave).max() * np.sin(np.pi * np.arange(length) / length))
    wave = np.concatenate(parts) * rng.uniform(0.3, 0.8)
    wave += rng.normal(scale=0.005, size=len(wave))
    return np.clip(wave * 32767, -32768, 32767).astype(np.int16)
