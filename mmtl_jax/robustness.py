"""What a run reaches when an input gets worse: curves over the level of a corruption, and how robust that makes it."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmtl_jax.core.files import read_json, write_json_atomic
from mmtl_jax.data import corruption_names
from mmtl_jax.metrics import effective_robustness, relative_robustness
from mmtl_jax.reporting import primary_curves, robustness_curves, write_figure
from mmtl_jax.tasks import Task, primaries_of
from mmtl_jax.training.evaluation import is_asked

Entry = dict[str, Any]


def chosen_corruptions(text: str, modalities: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (modality, corruption) for each part of `--corruptions`, such as 'image:noise,speech:snr'.

    Raises:
      ValueError: a part that is not of this form, names no modality of the run, or a corruption that does not exist.
    """
    chosen = []
    for part in text.split(','):
        modality, _, corruption = part.strip().partition(':')
        if not modality or not corruption:
            raise ValueError(
                f'--corruptions={text}: expected <modality>:<corruption>, several joined by commas, such as '
                f'image:noise,speech:snr; got {part!r}.'
            )
        if modality not in modalities:
            raise ValueError(f'--corruptions={text}: the run has no modality {modality!r}; it has {list(modalities)}.')
        corruption_names(corruption, ragged=False)
        chosen.append((modality, corruption))
    return list(dict.fromkeys(chosen))


def chosen_levels(parts: Sequence[str]) -> list[float]:
    """Returns the levels of `--levels` in their order, 0 among them.

    Raises:
      ValueError: one that is no number from 0 to 1, or none above 0.
    """
    levels = {0.0}
    for part in parts:
        try:
            level = float(part)
        except ValueError:
            level = math.nan
        if not 0 <= level <= 1:
            raise ValueError(f'--levels: expected numbers from 0 (unchanged) to 1 (worst), got {part!r}.')
        levels.add(level)
    if len(levels) < 2:
        raise ValueError('--levels: expected at least one level above 0, such as 0,0.5,1.')
    return sorted(levels)


def corruption_entry(
    tasks: Sequence[Task],
    modality: str,
    transform: str,
    levels: Sequence[float],
    evaluations: Sequence[Mapping[str, float]],
    baseline: Entry | None = None,
) -> Entry:
    """Returns what is kept of one corruption: the curve of every value, and the robustness of the primary metrics.

    Args:
      tasks: of the model.
      modality: that is corrupted.
      transform: that does it.
      levels: n, increasing, the first one 0.
      evaluations: the values at each level.
      baseline: the same entry of another run, for effective robustness.
    """
    names = dict.fromkeys(name for values in evaluations for name in values)
    curves = {name: [values.get(name, math.nan) for values in evaluations] for name in names}
    robustness = {}
    for task in tasks:
        name = f'{task.name}/{task.primary}'
        if name not in curves or not is_asked(task, [modality]) or not all(map(math.isfinite, curves[name])):
            continue
        robustness[name] = {'relative': relative_robustness(levels, curves[name])}
        theirs = (baseline or {}).get('values', {}).get(name)
        if theirs and None not in theirs:
            robustness[name]['baseline'] = list(theirs)
            robustness[name]['effective'] = effective_robustness(
                levels, curves[name], theirs, higher_is_better=task.higher_is_better
            )
    return {'transform': transform, 'levels': list(levels), 'values': curves, 'robustness': robustness}


def baseline_entries(
    workdir: pathlib.Path | None, split: str, corruptions: Sequence[str], levels: Sequence[float]
) -> dict[str, Entry]:
    """Returns corruption -> entry of a baseline run that was evaluated before, nothing without a baseline.

    Raises:
      ValueError: it was not evaluated with one of the corruptions at these levels.
    """
    if workdir is None:
        return {}
    path = workdir / f'robustness-{split}.json'
    entries = read_json(path)['corruptions'] if path.exists() else {}
    for name in corruptions:
        if entries.get(name, {}).get('levels') != list(levels):
            raise ValueError(
                f'--baseline={workdir} has no curve of {name} at the levels {list(levels)} on {split}; first give it '
                f'the same command: --workdir={workdir} --corruptions={",".join(corruptions)}.'
            )
    return {name: entries[name] for name in corruptions}


def robustness_lines(entries: Mapping[str, Entry]) -> list[list[str]]:
    """Returns the table to be printed: for each corruption and primary metric the curve and its robustness."""
    levels = sorted({level for entry in entries.values() for level in entry['levels']})
    lines = [['corruption and metric', *(f'{level:g}' for level in levels), 'relative', 'effective']]
    for corruption, entry in entries.items():
        for name, found in entry['robustness'].items():
            at = dict(zip(entry['levels'], entry['values'][name], strict=True))
            cells = [f'{at[level]:z.4f}' if level in at else '-' for level in levels]
            effective = f'{found["effective"]:+z.4f}' if 'effective' in found else '-'
            lines.append([f'{corruption} {name}', *cells, f'{found["relative"]:z.4f}', effective])
    return lines


def write_robustness(
    workdir: pathlib.Path,
    split: str,
    step: int | None,
    tasks: Sequence[Task],
    entries: Mapping[str, Entry],
) -> list[pathlib.Path]:
    """Keeps the curves in `robustness-<split>.json` and draws them in `figures/`; returns the files.

    Other corruptions that the file has of the same checkpoint stay, and are drawn as well.

    Args:
      workdir: the run directory.
      split: which was evaluated.
      step: of the checkpoint.
      tasks: of the model.
      entries: corruption -> from `corruption_entry`; the curves of a baseline in them are drawn as well.
    """
    path = workdir / f'robustness-{split}.json'
    before = read_json(path) if path.exists() else {}
    kept = before['corruptions'] if before.get('step') == step else {}
    together = {**kept, **entries}
    write_json_atomic(path, {'step': step, 'split': split, 'corruptions': together})
    if not any(entry['robustness'] for entry in together.values()):
        return [path]
    primaries = primaries_of(tasks)
    theirs = primary_curves(together, baseline=True)
    figure = robustness_curves(primary_curves(together), primaries, baseline=theirs)
    return [path, write_figure(workdir / 'figures' / f'robustness_{split}.png', figure)]
