"""Subsets of names, such as those of modalities, in one order and by one name."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

Subset = tuple[str, ...]


def subsets_of(names: Sequence[str]) -> Iterator[Subset]:
    """Yields all 2^M subsets of `names` in their order: the empty one first, all names last."""
    for size in range(len(names) + 1):
        yield from combinations(names, size)


def parse_subset(text: str, names: Sequence[str]) -> Subset | None:
    """Returns the subset whose names, joined by '_' in any order, are `text`; None if there is none.

    Args:
      text: such as 'image_caption'.
      names: all of them, in the order of the result; a name may hold a '_' itself.
    """
    found = _parse(text, frozenset(names))
    return None if found is None else tuple(name for name in names if name in found)


def _parse(text: str, names: Collection[str]) -> set[str] | None:
    for name in names:
        if text == name:
            return {name}
        rest = _parse(text[len(name) + 1 :], set(names) - {name}) if text.startswith(f'{name}_') else None
        if rest is not None:
            return {name, *rest}
    return None
