"""Two data sets or more that describe the same things, as one."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mmtl_jax.data.sources import Source, load_source, read_values
from mmtl_jax.data.transforms.base import Example


def joined(split: str, *, names: Sequence[str], on: str, data_dir: str | None = None) -> Source:
    """Returns the examples that all of several data sets have, each with the keys of all.

    Cityscapes has its classes in 'cityscapes/semantic_segmentation' and its disparity in 'cityscapes/stereo_disparity'.
    A config names it as a source by its dotted path, with the rest as `builder_kwargs`.

    Args:
      split: the split's name, the same in all; no slices.
      names: of the data sets, at least two; a key that several have is that of the first of them.
      on: the key by which an example is known; each of its values occurs once in a data set.
      data_dir: where TFDS keeps its data.

    Raises:
      ValueError: a single data set, a slice, one without that key, a value that occurs twice, or nothing in common.
    """
    if len(names) < 2 or isinstance(names, str):
        raise ValueError(f'joined: names must be at least two data sets, got {names!r}.')
    if '[' in split:
        raise ValueError(f'joined: {split!r} would cut each data set at places of its own; name a whole split.')
    sources = tuple(load_source(name, split, data_dir=data_dir) for name in names)
    places = [_places(source, on) for source in sources]
    common = [value for value in places[0] if all(value in other for other in places[1:])]
    if not common:
        raise ValueError(f'joined: {" and ".join(map(repr, names))} have no {on!r} in common in the split {split!r}.')
    return Joined(sources, np.array([[place[value] for place in places] for value in common]))


@dataclasses.dataclass(frozen=True)
class Joined:
    """A source whose examples are put together from one example of each of several sources.

    Attributes:
      sources: at least one; a key that several have is that of the first of them.
      rows: `[N, number of sources]`, which example of each.
    """

    sources: tuple[Source, ...]
    rows: np.ndarray

    @property
    def name(self) -> str:
        """The data sets."""
        return ' + '.join(source.name for source in self.sources)

    @property
    def split(self) -> str:
        """The part of them."""
        return self.sources[0].split

    @property
    def keys(self) -> tuple[str, ...]:
        """What an example can hold."""
        return tuple(dict.fromkeys(key for source in self.sources for key in source.keys))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.name!r} ({self.split}) has {len(self)} examples, there is no number {index}.')
        parts = [source[int(row)] for source, row in zip(self.sources, self.rows[index], strict=True) if source.keys]
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def select(self, keys: Iterable[str]) -> 'Joined':
        """Returns a source that reads and decodes these keys only, each once.

        Raises:
          ValueError: no data set has such a key.
        """
        keys = tuple(keys)
        unknown = [key for key in keys if key not in self.keys]
        if unknown:
            raise ValueError(f'{self.name!r} has no key {unknown[0]!r}; it has {sorted(self.keys)}.')
        first = {key: next(n for n, source in enumerate(self.sources) if key in source.keys) for key in keys}
        selected = (
            source.select(key for key in keys if first[key] == number) for number, source in enumerate(self.sources)
        )
        return Joined(tuple(selected), self.rows)

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label, () if they have none."""
        return next((source.class_names(key) for source in self.sources if key in source.keys), ())


def _places(source: Source, on: str) -> dict[str, int]:
    """Returns value of the key -> number of its example."""
    if on not in source.keys:
        raise ValueError(f'joined: {source.name!r} has no key {on!r}; it has {sorted(source.keys)}.')
    values = read_values(source, on)
    places = {value: number for number, value in enumerate(values)}
    if len(places) < len(values):
        twice = next(value for number, value in enumerate(values) if places[value] != number)
        raise ValueError(f'joined: {twice!r} occurs twice under {on!r} in {source.name!r} ({source.split}).')
    return places
