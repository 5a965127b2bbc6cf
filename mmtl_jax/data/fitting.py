"""What is fitted on the training split: vocabularies and statistics, as plain values for the run directory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmtl_jax.core.build import build, check_arguments
from mmtl_jax.data import transforms
from mmtl_jax.data.sources import Source, read_values
from mmtl_jax.data.tokenizers import fit_vocabulary
from mmtl_jax.data.transforms.base import is_missing


def fit_vocabularies(specs: Mapping[str, Mapping[str, Any]], source: Source) -> dict[str, Any]:
    """Returns what was fitted, by name: a list of strings for a vocabulary, 'mean' and 'std' for statistics.

    Args:
      specs: name -> {'key': ..., 'kind': 'characters', 'words', 'word_piece' or 'statistics'} with options of
        `fit_vocabulary`, and `steps`, transform specs that the values go through before.
      source: the training split. Only the named keys are decoded.

    Raises:
      ValueError: a spec without a key, unknown options, or nothing to fit on.
    """
    fitted = {}
    for name, spec in specs.items():
        options = dict(spec)
        if 'key' not in options:
            raise ValueError(f"vocabulary {name!r} needs a 'key', got {sorted(options)}.")
        key, kind = options.pop('key'), options.pop('kind', 'characters')
        steps = [build(step, transforms) for step in options.pop('steps', ())]
        values = read_values(source, key)
        for step in steps:
            values = [step({key: value})[key] for value in values]
        values = [value for value in values if not is_missing(value)]
        if kind == 'statistics':
            check_arguments(f'vocabulary {name!r}', column_statistics, {**options, 'values': values, 'name': name})
            fitted[name] = column_statistics(name=name, values=values)
        else:
            check_arguments(f'vocabulary {name!r}', fit_vocabulary, {**options, 'texts': values, 'kind': kind})
            fitted[name] = fit_vocabulary(values, kind=kind, **options)
    return fitted


def column_statistics(name: str, values: list[Any]) -> dict[str, Any]:
    """Returns mean and standard deviation per cell, over what is not NaN."""
    if not values:
        raise ValueError(f'statistics {name!r}: every value is missing.')
    table = np.stack([np.asarray(value, np.float64) for value in values])
    known = ~np.isnan(table)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, table, 0).sum(axis=0) / count
    std = np.sqrt(np.where(known, (table - mean) ** 2, 0).sum(axis=0) / count)
    return {'mean': mean.tolist(), 'std': std.tolist()}
