"""The report's parts about inputs that are missing or bad, from what an evaluation of a run left in its directory."""

from collections.abc import Mapping
from typing import Any

from mmtl_jax.reporting.curves import Primaries
from mmtl_jax.reporting.page import Html, figure_card, table, tag
from mmtl_jax.reporting.robustness import primary_curves, robustness_curves
from mmtl_jax.reporting.style import finite, number
from mmtl_jax.reporting.subsets import shapley_bars, subset_table

Saved = Mapping[str, Mapping[str, Any]]  # split -> content of the file


def subsets_section(saved: Saved, primaries: Primaries) -> list[Html]:
    """Returns the tables of subsets, and the Shapley values where they are known; empty without any.

    Args:
      saved: split -> `subsets-<split>.json`.
      primaries: task -> (primary metric, higher is better).
    """
    cards = []
    for split, content in saved.items():
        entries = sorted(content['subsets'].values(), key=lambda entry: -len(entry['modalities']))
        modalities = sorted({name for entry in entries for name in entry['modalities']})
        scores = {tuple(entry['modalities']): _primary_values(entry['values'], primaries) for entry in entries}
        if modalities and any(scores.values()):
            figure = subset_table(scores, modalities, primaries, f'subsets of the modalities, {split}')
            cards.append(figure_card(figure, f'subsets-{split}'))
        if content.get('shapley'):
            worth = {task: values for task, values in content['shapley'].items() if task in primaries}
            cards.append(figure_card(shapley_bars(worth, modalities, primaries), f'shapley-{split}'))
    note = (
        'Every subset on the same examples; a point is a modality that is there. Shapley value: what a modality adds '
        "to a task's primary metric when the modalities come in a random order; above 0 it makes the task better."
    )
    return [tag('p', note, class_='note'), tag('div', cards, class_='grid large')] if cards else []


def _primary_values(values: Mapping[str, float | None], primaries: Primaries) -> dict[str, float]:
    """Returns task -> primary metric, of the tasks that have a finite one."""
    named = {task: values.get(f'{task}/{metric}') for task, (metric, _) in primaries.items()}
    return {task: value for task, value in named.items() if finite([value])}


def robustness_section(saved: Saved, primaries: Primaries) -> list[Html]:
    """Returns the curves over the levels of each corruption, and the areas under them; empty without any.

    Args:
      saved: split -> `robustness-<split>.json`.
      primaries: task -> (primary metric, higher is better).
    """
    cards = []
    for split, content in saved.items():
        curves = primary_curves(content['corruptions'])
        if not any(task in primaries for task in curves):
            continue
        areas = tag('div', _areas(content['corruptions']), class_='card')
        folded = tag('details', tag('summary', f'Areas under the curves, {split}'), areas)
        theirs = primary_curves(content['corruptions'], baseline=True)
        figure = robustness_curves(curves, primaries, baseline=theirs)
        cards.append([figure_card(figure, f'robustness-{split}'), folded])
    note = (
        'The primary metrics over the level of each corruption: at 0 the input is as it is, at 1 it is worst. Dashed, '
        'where there is one: the run to compare with, moved to the same clean value.'
    )
    return [tag('p', note, class_='note'), *cards] if cards else []


def _areas(corruptions: Mapping[str, Mapping[str, Any]]) -> Html:
    """Returns the relative robustness of each corruption and metric, and the effective one where it is known."""
    kinds = ('relative', 'effective')
    rows = [
        (f'{corruption} · {name}', *(number(found[kind]) if kind in found else '' for kind in kinds))
        for corruption, entry in corruptions.items()
        for name, found in entry['robustness'].items()
    ]
    return table(['corruption and metric', *kinds], rows, class_='numbers')
