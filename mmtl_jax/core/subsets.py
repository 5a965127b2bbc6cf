"""Subsets of names, such as those of modalities, in one order and by one name."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

Subset = tuple[str, ...]
SUBSETS, EQUAL = 'subsets', 'equal'


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


def names_subsets(dropout: Any, modalities: Collection[str]) -> bool:
    """Returns whether a dropout of modalities is `{'subsets': ...}`, rather than of each on its own."""
    return isinstance(dropout, Mapping) and SUBSETS in dropout and SUBSETS not in modalities


def subset_weights(dropout: Mapping[str, Any], modalities: Sequence[str]) -> dict[Subset, float]:
    """Returns the weight of each subset of which a row may keep one.

    Args:
      dropout: `{'subsets': 'equal'}` for all subsets but the empty one, or `{'subsets': {name: weight}}`, with names as
        for `parse_subset`.
      modalities: all of them.

    Raises:
      ValueError: anything else.
    """
    given = dropout[SUBSETS]
    if len(dropout) > 1:
        raise ValueError(f'modality_dropout: {SUBSETS!r} stands alone, got {sorted(dropout)}.')
    if given == EQUAL:
        return {subset: 1.0 for subset in subsets_of(modalities) if subset}
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f'modality_dropout: {SUBSETS!r} is {EQUAL!r} or subset -> weight, got {given!r}.')
    weights = {}
    for text, weight in given.items():
        subset = parse_subset(text, modalities)
        if subset is None:
            raise ValueError(
                f'modality_dropout: {text!r} is no subset of {list(modalities)}; join some of them by "_".'
            )
        if not 0.0 < weight < float('inf'):
            raise ValueError(f'modality_dropout: the weight of {text!r} must be a number above 0, got {weight}.')
        weights[subset] = float(weight)
    return weights
