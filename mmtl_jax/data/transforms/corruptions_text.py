"""Corruptions of texts, letter by letter; after Belinkov and Bisk, 1711.02173, and MultiBench, 2107.07502."""

import numpy as np

from mmtl_jax.data.transforms.base import Transform
from mmtl_jax.data.transforms.corruptions import Corrupt, corruption

ROWS = ('1234567890', 'qwertyuiop', 'asdfghjkl', 'zxcvbnm')


def text_swap(key: str, level: float = 0.5) -> Transform:
    """Swaps two neighbouring letters of a word with probability `level`, from left to right, none of them twice."""

    def function(text: str, rng: np.random.Generator) -> str:
        letters, chosen = list(text), rng.random(len(text)) < level
        place = 0
        while place < len(letters) - 1:
            if chosen[place] and letters[place].isalnum() and letters[place + 1].isalnum():
                letters[place : place + 2] = letters[place + 1], letters[place]
                place += 1
            place += 1
        return ''.join(letters)

    return _corruption('text_swap', function, key, level)


def text_typos(key: str, level: float = 0.5) -> Transform:
    """Replaces each letter or digit by one next to it on an English keyboard with probability `level`.

    Case stays. What is not on that keyboard, such as another script, stays too.
    """

    def function(text: str, rng: np.random.Generator) -> str:
        chosen, choices = rng.random((2, len(text)))
        return ''.join(
            _neighbour(letter, choice) if hit < level else letter
            for letter, hit, choice in zip(text, chosen, choices, strict=True)
        )

    return _corruption('text_typos', function, key, level)


def text_deletion(key: str, level: float = 0.5) -> Transform:
    """Leaves out each character with probability `level`; at 1 the text is missing."""

    def function(text: str, rng: np.random.Generator) -> str:
        kept = rng.random(len(text)) >= level
        return ''.join(letter for letter, stays in zip(text, kept, strict=True) if stays)

    return _corruption('text_deletion', function, key, level)


def _corruption(name: str, function: Corrupt, key: str, level: float) -> Transform:
    return corruption(name, function, key, level, fits=lambda value: isinstance(value, str), expected='a text')


def _neighbours() -> dict[str, str]:
    """Returns character -> those that touch its key; each row of keys is shifted by half a key to the right."""
    places = {letter: (row, column + row / 2) for row, keys in enumerate(ROWS) for column, letter in enumerate(keys)}
    return {
        letter: ''.join(
            other
            for other, (r, c) in places.items()
            if other != letter and abs(r - row) <= 1 and abs(c - column) <= (1 if r == row else 0.5)
        )
        for letter, (row, column) in places.items()
    }


NEIGHBOURS = _neighbours()


def _neighbour(letter: str, choice: float) -> str:
    """Returns one of a character's neighbours, the character itself if there are none; `choice` is in [0, 1)."""
    options = NEIGHBOURS.get(letter.lower(), '')
    if not options:
        return letter
    other = options[int(choice * len(options))]
    return other.upper() if letter.isupper() else other
