"""What a run does without some of its modalities: the table of subsets, and what each modality is worth."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmtl_jax.core.files import read_json, write_json_atomic
from mmtl_jax.core.subsets import Subset, parse_subset, subsets_of
from mmtl_jax.metrics import shapley_values
from mmtl_jax.reporting import shapley_bars, subset_table, write_figure
from mmtl_jax.tasks import Task, primaries_of
from mmtl_jax.training.evaluation import Evaluated, is_asked

ALL_SUBSETS = 'all-subsets'
NONE = 'none'
CHANCE = '_chance'  # `r5_chance` is what chance reaches of `r5`


def chosen_subsets(text: str, modalities: Sequence[str]) -> list[Subset]:
    """Returns the subsets that `--modalities` names, each in the order of `modalities`.

    Args:
      text: 'all-subsets' for all 2^M, all modalities first and the empty subset last; or one, its names joined by '_'
        in any order, such as 'image_caption'.
      modalities: of the model.

    Raises:
      ValueError: a name that is no modality.
    """
    if text == ALL_SUBSETS:
        return list(reversed(list(subsets_of(modalities))))
    subset = parse_subset(text, modalities)
    if subset is None:
        raise ValueError(
            f"--modalities={text} names no subset of the run's modalities {list(modalities)}; join some of them by "
            f'"_", such as {"_".join(modalities[:2])}, or give {ALL_SUBSETS}.'
        )
    return [subset]


def subset_name(subset: Subset) -> str:
    """Returns the modalities joined by '_', 'none' for none."""
    return '_'.join(subset) or NONE


def asked_values(tasks: Sequence[Task], subset: Subset, evaluated: Evaluated) -> dict[str, float]:
    """Returns the values of the tasks that have something to read in the subset."""
    asked = {task.name for task in tasks if is_asked(task, subset)}
    return {name: value for name, value in evaluated.values.items() if name.split('/')[0] in asked}


def primary_scores(tasks: Sequence[Task], found: Mapping[Subset, Evaluated]) -> dict[Subset, dict[str, float]]:
    """Returns subset -> task -> primary metric, of the tasks that have something to read and a finite value."""
    return {
        subset: {
            task.name: evaluated.values[f'{task.name}/{task.primary}']
            for task in tasks
            if is_asked(task, subset) and math.isfinite(evaluated.values.get(f'{task.name}/{task.primary}', math.nan))
        }
        for subset, evaluated in found.items()
    }


def modality_worth(
    tasks: Sequence[Task], modalities: Sequence[str], found: Mapping[Subset, Evaluated]
) -> dict[str, dict[str, float]]:
    """Returns task -> modality -> exact Shapley value of the primary metric, above 0 where it makes the task better.

    The empty subset is worth what the model reaches that sees nothing: it gives every row the same answer. Where a
    subset leaves the metric undefined, as retrieval without two modalities, what chance reaches counts, if the metric
    has such a value; else the task has none.

    Args:
      tasks: of the model.
      modalities: M names.
      found: what the model does with each of the 2^M subsets.
    """
    worth = {}
    for task in tasks:
        sign, name = (1 if task.higher_is_better else -1), f'{task.name}/{task.primary}'
        chance = found[tuple(modalities)].values.get(name + CHANCE, math.nan)
        values = {subset: sign * evaluated.values.get(name, chance) for subset, evaluated in found.items()}
        if all(map(math.isfinite, values.values())):
            worth[task.name] = shapley_values(values, modalities)
    return worth


def subset_lines(tasks: Sequence[Task], found: Mapping[Subset, Evaluated]) -> list[list[str]]:
    """Returns the table to be printed: a head, then a line for each subset."""
    scores = primary_scores(tasks, found)
    head = ['modalities', 'rows', 'blank', *(f'{task.name}/{task.primary}' for task in tasks)]
    return [head] + [
        [
            ' + '.join(subset) or NONE,
            str(len(evaluated.rows)),
            str(evaluated.blank),
            *(f'{scores[subset][task.name]:z.4f}' if task.name in scores[subset] else '-' for task in tasks),
        ]
        for subset, evaluated in found.items()
    ]


def worth_lines(
    tasks: Sequence[Task], modalities: Sequence[str], worth: Mapping[str, Mapping[str, float]]
) -> list[list[str]]:
    """Returns the table of Shapley values to be printed: a head, then a line for each modality."""
    shown = [task for task in tasks if task.name in worth]
    head = ['Shapley value', *(f'{task.name}/{task.primary}' for task in shown)]
    return [head] + [[name, *(f'{worth[task.name][name]:+z.4f}' for task in shown)] for name in modalities]


def write_subsets(
    workdir: pathlib.Path,
    split: str,
    step: int | None,
    tasks: Sequence[Task],
    modalities: Sequence[str],
    found: Mapping[Subset, Evaluated],
    worth: Mapping[str, Mapping[str, float]] | None,
) -> list[pathlib.Path]:
    """Keeps what was found in `subsets-<split>.json` and in `figures/`; returns the files.

    Other subsets that the file has of the same checkpoint stay; figures are drawn of all subsets together only.

    Args:
      workdir: the run directory.
      split: which was evaluated.
      step: of the checkpoint.
      tasks: of the model.
      modalities: of the model.
      found: what it does with each subset.
      worth: from `modality_worth`; None if some subsets were not evaluated.
    """
    path = workdir / f'subsets-{split}.json'
    before = read_json(path) if path.exists() else {}
    kept: dict[str, Any] = before if before.get('step') == step else {}
    entries = {
        subset_name(subset): {
            'modalities': subset,
            'rows': len(evaluated.rows),
            'blank': evaluated.blank,
            'values': asked_values(tasks, subset, evaluated),
        }
        for subset, evaluated in found.items()
    }
    kept = {**kept, 'step': step, 'split': split, 'subsets': {**kept.get('subsets', {}), **entries}}
    write_json_atomic(path, kept if worth is None else {**kept, 'shapley': worth})
    if worth is None:
        return [path]
    primaries = primaries_of(tasks)
    table = subset_table(primary_scores(tasks, found), modalities, primaries, f'subsets of the modalities, {split}')
    written = [path, write_figure(workdir / 'figures' / f'subsets_{split}.png', table)]
    if worth:
        bars = shapley_bars(worth, modalities, primaries)
        written.append(write_figure(workdir / 'figures' / f'shapley_{split}.png', bars))
    return written
