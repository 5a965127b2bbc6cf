"""Which modalities a row of training goes without, so that the model learns to do with each subset of them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.core.subsets import Subset, names_subsets, subset_weights

# (the modalities that a row has, in alphabetical order; its random numbers) -> those that it goes without
Drop = Callable[[Sequence[str], np.random.Generator], list[str]]


def make_drop(spec: float | Mapping[str, Any], modalities: Sequence[str]) -> Drop | None:
    """Returns the function that says which modalities a row goes without, None where it is never one.

    Args:
      spec: a probability, for each modality on its own; modality -> probability; or `{'subsets': ...}`, with 'equal'
        or subset -> weight, such as `{'image': 1, 'image_caption': 2}`.
      modalities: all of them.

    Raises:
      ValueError: an unknown modality or subset, a probability outside [0, 1), or weights that are not positive.
    """
    if names_subsets(spec, modalities):
        return functools.partial(keep_subset, weights=subset_weights(spec, sorted(modalities)))
    rates = dict(spec) if isinstance(spec, Mapping) else dict.fromkeys(modalities, spec)
    for modality, rate in rates.items():
        if modality not in modalities:
            raise ValueError(f'modality_dropout: there is no modality {modality!r}; choose from {list(modalities)}.')
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'modality_dropout of {modality!r} must be at least 0 and below 1, got {rate}.')
    return functools.partial(drop_each, rates=rates) if any(rates.values()) else None


def drop_each(present: Sequence[str], rng: np.random.Generator, *, rates: Mapping[str, float]) -> list[str]:
    """Returns those that are dropped, each on its own (ModDrop, Neverova et al. 2015, 1501.00102); one always stays."""
    dropped = [modality for modality in present if rng.random() < rates.get(modality, 0.0)]
    if present and len(dropped) == len(present):
        dropped.remove(present[int(rng.integers(len(present)))])
    return dropped


def keep_subset(present: Sequence[str], rng: np.random.Generator, *, weights: Mapping[Subset, float]) -> list[str]:
    """Returns all but a random subset of what the row has, drawn in the proportion of the weights.

    Args:
      present: the modalities of the row.
      rng: of the row.
      weights: subset -> weight; one with a modality that the row lacks is left out, and without any all stays.
    """
    possible = [subset for subset in weights if set(subset) <= set(present)]
    if not possible:
        return []
    shares = np.cumsum([weights[subset] for subset in possible])
    kept = possible[int(np.searchsorted(shares, rng.random() * shares[-1], side='right'))]
    return [modality for modality in present if modality not in kept]
