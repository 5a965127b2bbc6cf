"""`report.html`: one file that tells a run: results, curves, confusions, samples, resources, config.

Everything is inside the file, so it can be mailed or put on a server as it is. It needs no JavaScript.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.core.files import write_bytes_atomic
from mmtl_jax.reporting import curves, pictures
from mmtl_jax.reporting.attention import Attended
from mmtl_jax.reporting.calibration import reliability_figures
from mmtl_jax.reporting.features import FeatureMap
from mmtl_jax.reporting.figures import fusion_figures
from mmtl_jax.reporting.gradients import balancing_figures
from mmtl_jax.reporting.modalities import modality_figures
from mmtl_jax.reporting.page import (
    Html,
    breakable,
    document,
    drawn,
    figure_card,
    flatten,
    navigation,
    picture,
    sections,
    sound,
    table,
    tag,
    with_sections,
)
from mmtl_jax.reporting.resources import resources_section
from mmtl_jax.reporting.samples import Answer, Evaluation, Sample
from mmtl_jax.reporting.scenes import scene_sheet
from mmtl_jax.reporting.sections import Saved, robustness_section, subsets_section
from mmtl_jax.reporting.style import NUM_HUES, finite, number, to_svg

Evaluations = Mapping[str, Mapping[str, Evaluation]]
SOUNDS = 8  # a sound costs about 100 kB
SAMPLES = 24
ORDER = (
    'Results', 'Curves', 'Confusion', 'Calibration', 'Subsets', 'Robustness', 'Samples', 'Fusion', 'Resources', 'Setup'
)  # fmt: skip


def write_report(
    path: str | os.PathLike[str],
    *,
    primaries: curves.Primaries,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    history: curves.History,
    summary: Mapping[str, Any],
    evaluations: Evaluations | None = None,
    samples: Sequence[Sample] = (),
    resources: Mapping[str, Any] | None = None,
    features: FeatureMap | None = None,
    attention: Sequence[Attended] = (),
    subsets: Saved | None = None,
    robustness: Saved | None = None,
    title: str = 'Training run',
) -> None:
    """Writes the report of a run; a part without data is left out, so a run that ended early has a report too.

    Args:
      path: the HTML file.
      primaries: task -> (primary metric, higher is better); its order fixes the tasks' order and colours.
      config: `config.json`.
      environment: `environment.json`.
      history: rows of `metrics.jsonl`.
      summary: `summary.json`: `step`, `best_step`, and per split the values of the best checkpoint.
      evaluations: split -> task -> `Evaluation`.
      samples: examples with the model's answers; the first 24 are shown, the first 8 with their sound.
      resources: see `resources_section`.
      features: the fused features as a map.
      attention: examples with the attention between modalities.
      subsets: split -> `subsets-<split>.json`, what an evaluation with missing modalities found.
      robustness: split -> `robustness-<split>.json`, what one with corrupted inputs found.
      title: over the page.

    Raises:
      ValueError: a sample's image or waveform, or a confusion matrix, has a wrong shape or type.
      OSError: the file cannot be written; a full disk is told in one sentence.
    """
    evaluations = evaluations or {}
    contents = {
        'Results': _results(primaries, summary, evaluations),
        'Curves': _curves(primaries, history, summary.get('best_step')),
        'Confusion': _confusions(evaluations),
        'Calibration': _calibration(evaluations),
        'Subsets': subsets_section(subsets or {}, primaries),
        'Robustness': robustness_section(robustness or {}, primaries),
        'Samples': _samples(list(primaries), samples),
        'Fusion': _fusion(features, attention),
        'Resources': resources_section(resources or {}),
        'Setup': _setup(config, environment),
    }
    shown = {name: contents[name] for name in ORDER if contents[name]}
    page = tag('main', tag('header', tag('h1', title), _subtitle(summary), navigation(shown)), sections(shown))
    write_bytes_atomic(path, document(title, page))


def update_report(
    path: str | os.PathLike[str],
    *,
    primaries: curves.Primaries,
    summary: Mapping[str, Any],
    subsets: Saved,
    robustness: Saved,
) -> bool:
    """Brings what was evaluated after the training into a report: its results, subsets and robustness.

    Everything else in it stays.

    Args:
      path: the HTML file.
      primaries: as in `write_report`, and so are the next three.
      summary: see there.
      subsets: see there.
      robustness: see there.

    Returns:
      Whether there was a report.
    """
    path = pathlib.Path(path)
    page = path.read_text(encoding='utf-8') if path.exists() else ''
    if '<section' not in page:
        return False
    contents = {
        'Results': _results(primaries, summary, {}),
        'Subsets': subsets_section(subsets, primaries),
        'Robustness': robustness_section(robustness, primaries),
    }
    write_bytes_atomic(path, with_sections(page, contents, ORDER))
    return True


def _subtitle(summary: Mapping[str, Any]) -> Html:
    facts = [
        f'{name.replace("_", " ")} {summary[name]:,}' for name in ('step', 'best_step') if _is_number(summary, name)
    ]
    return tag('p', ' · '.join(facts), class_='note')


def _is_number(values: Mapping[str, Any], name: str) -> bool:
    return bool(finite([values.get(name)])) and not isinstance(values.get(name), bool)


def _colour(index: int) -> str:
    return f'--task:var(--hue-{index % NUM_HUES})'


def _values(summary: Mapping[str, Any], evaluations: Evaluations) -> dict[str, dict[str, float]]:
    """Returns split -> `<task>/<metric>` -> value at the best checkpoint; an evaluation's scores fill the gaps."""
    found: dict[str, dict[str, float]] = {}
    for split, by_task in evaluations.items():
        for task, evaluation in by_task.items():
            found.setdefault(split, {}).update({f'{task}/{name}': value for name, value in evaluation.scores.items()})
    for split, values in summary.items():
        if isinstance(values, Mapping):
            numbers = {name: value for name, value in values.items() if _is_number(values, name)}
            found.setdefault(split, {}).update(numbers)
    return {
        split: found[split]
        for split in sorted(found, key=lambda s: (s not in ('train', 'validation', 'test'), s == 'test'))
    }


def _results(primaries: curves.Primaries, summary: Mapping[str, Any], evaluations: Evaluations) -> list[Html]:
    """Returns a tile per task with its primary metric, and a table of every metric on every split."""
    values = _values(summary, evaluations)
    if not values:
        return []
    tiles = [_tile(index, task, primaries[task], values) for index, task in enumerate(primaries)]
    names = list(dict.fromkeys(name for by_name in values.values() for name in by_name))
    order = {task: index for index, task in enumerate(primaries)}
    names.sort(key=lambda name: order.get(name.split('/')[0], len(order)))
    rows = [[breakable(name), *(number(v[name]) if name in v else '' for v in values.values())] for name in names]
    everything = table(['metric', *values], rows, class_='numbers')
    return [
        tag('div', [tile for tile in tiles if tile], class_='grid tiles'),
        tag('details', tag('summary', 'Every metric'), tag('div', everything, class_='card')) if rows else None,
    ]


def _tile(index: int, task: str, primary: tuple[str, bool], values: Mapping[str, Mapping[str, float]]) -> Html | None:
    metric, higher = primary
    by_split = {
        split: by_name[f'{task}/{metric}'] for split, by_name in values.items() if f'{task}/{metric}' in by_name
    }
    if not by_split:
        return None
    main = 'test' if 'test' in by_split else 'validation' if 'validation' in by_split else next(iter(by_split))
    arrow = '↑' if higher else '↓'
    others = ' · '.join(f'{split} {number(value)}' for split, value in by_split.items() if split != main)
    return tag(
        'div',
        tag('h3', task),
        tag('div', number(by_split[main]), class_='value'),
        tag(
            'p',
            tag('span', arrow, title=curves.direction(higher)),
            f' {metric.replace("_", " ")}, {main}',
            class_='small',
        ),
        tag('p', others, class_='small') if others else None,
        class_='card tile',
        style=_colour(index),
    )


def _panel_cards(panels: Sequence[curves.Panel], prefix: str, best_step: int | None) -> Html:
    cards = [figure_card(curves.panel_figure(panel, best_step), f'{prefix}{i}') for i, panel in enumerate(panels)]
    return tag('div', cards, class_='grid')


def _curves(primaries: curves.Primaries, history: curves.History, best_step: int | None) -> list[Html]:
    """Returns the losses and primary metrics, then the balancing, then everything else folded away."""
    tasks = list(primaries)
    metrics = curves.metric_panels(history, tasks, primaries)
    groups = {'Losses': curves.loss_panels(history, tasks), 'Primary metrics': [p for p in metrics if p.primary]}
    folded = {'Further metrics': [p for p in metrics if not p.primary], 'The run': curves.run_panels(history, tasks)}
    parts = []
    for label, panels in groups.items():
        if panels:
            parts += [tag('h3', label), _panel_cards(panels, f'{label[0]}-', best_step)]
    balancing = [figure_card(figure, name) for name, figure in balancing_figures(history, tasks)]
    if balancing:
        parts += [tag('h3', 'Balancing'), tag('div', balancing, class_='grid large')]
    modalities = [figure_card(figure, name) for name, figure in modality_figures(history)]
    if modalities:
        parts += [tag('h3', 'Modalities'), tag('div', modalities, class_='grid large')]
    for label, panels in folded.items():
        if panels:
            cards = _panel_cards(panels, f'{label[0]}-', best_step)
            parts.append(tag('details', tag('summary', f'{label} ({len(panels)})'), cards))
    return parts


def _confusions(evaluations: Evaluations) -> list[Html]:
    """Returns the confusion matrices, the split that was kept apart first, each with what is confused most."""
    cards = []
    for split in sorted(evaluations, key=lambda name: name != 'test'):
        for task, evaluation in evaluations[split].items():
            if evaluation.confusion is None:
                continue
            figure = pictures.confusion(evaluation.confusion, evaluation.class_names, f'{task}, {split}')
            svg = Html(to_svg(figure, f'c{len(cards)}'))
            often = tag('p', _most_confused(evaluation), class_='small')
            cards.append(tag('div', svg, often, class_='card'))
    if not cards:
        return []
    note = 'Rows: what was expected. Columns: what was predicted. Colour: share of the row. Number: examples.'
    return [tag('p', note, class_='note'), tag('div', cards, class_='grid large')]


def _calibration(evaluations: Evaluations) -> list[Html]:
    """Returns the reliability diagrams, the split that was kept apart first."""
    order = {split: evaluations[split] for split in sorted(evaluations, key=lambda name: name != 'test')}
    cards = [figure_card(figure, f'r{index}') for index, (_, figure) in enumerate(reliability_figures(order))]
    note = 'Bars: how often answers of a confidence are right. Lines: their mean confidence; bars below are too sure.'
    return [tag('p', note, class_='note'), tag('div', cards, class_='grid large')] if cards else []


def _fusion(features: FeatureMap | None, attention: Sequence[Attended]) -> list[Html]:
    """Returns the map of the fused features, and the attention between modalities on some examples."""
    cards = [figure_card(figure, f'f{index}') for index, (_, figure) in enumerate(fusion_figures(features, attention))]
    note = (
        'Fused features by t-SNE: what lies together looks alike to the tasks. Attention: mean over layers and heads.'
    )
    return [tag('p', note, class_='note'), tag('div', cards, class_='grid large')] if cards else []


def _most_confused(evaluation: Evaluation, most: int = 3) -> str:
    matrix = np.array(evaluation.confusion)
    np.fill_diagonal(matrix, 0)
    names = evaluation.class_names or tuple(map(str, range(len(matrix))))
    order = np.argsort(-matrix, axis=None, kind='stable')[:most]
    pairs = [np.unravel_index(place, matrix.shape) for place in order]
    told = [
        f'{names[row]} → {names[column]} {matrix[row, column]:,}' for row, column in pairs if matrix[row, column] > 0
    ]
    return f'Most often confused: {", ".join(told)}.' if told else 'Nothing is confused.'


def _samples(tasks: Sequence[str], samples: Sequence[Sample]) -> list[Html]:
    if not samples:
        return []
    cards = [_sample(tasks, sample, index) for index, sample in enumerate(samples[:SAMPLES])]
    return [tag('div', cards, class_='grid samples')]


def _sample(tasks: Sequence[str], sample: Sample, place: int) -> Html:
    """Returns a card: pictures, texts, sounds, tables of one example, then each task's answer."""
    photos = [picture(image, f'{name} of {sample.id}', class_='photo') for name, image in sample.images.items()]
    words = [tag('p', text, class_='text') for text in sample.texts.values()]
    parts = [tag('div', photos, tag('div', words, tag('p', sample.id, class_='id')), class_='top')]
    for name, (waveform, rate) in sample.waveforms.items():
        pixels = pictures.spectrogram_pixels(waveform, rate)
        parts.append(picture(pixels, f'{name} of {sample.id} as a spectrogram', limit=480, kind='jpeg', class_='sound'))
        parts.append(tag('p', f'{name}: {len(waveform) / rate:.1f} s, 0 to {rate / 2000:g} kHz', class_='id'))
        parts.append(sound(waveform, rate) if place < SOUNDS else None)
    for name, grid in sample.spectrograms.items():
        description = f'{name} of {sample.id} as a spectrogram'
        parts.append(picture(pictures.spectrogram_pixels(grid), description, limit=480, kind='jpeg', class_='sound'))
    parts += [table([], row.items(), class_='plain') for row in sample.tables.values()]
    for task, answer in sample.answers.items():
        index = tasks.index(task) if task in tasks else len(tasks)
        parts.append(_answer(task, answer, _colour(index)))
    if sample.scene is None:
        return tag('article', parts, class_='card sample')
    told = tag('div', parts, class_='sample')
    return tag('article', told, drawn(scene_sheet([sample.scene]), f's{place}'), class_='card scene')


def _answer(task: str, answer: Answer, colour: str) -> Html:
    look = {True: 'answer right', False: 'answer wrong', None: 'answer'}[answer.correct]
    sign = {True: '✓ ', False: '✗ ', None: ''}[answer.correct]
    differs = answer.expected != answer.predicted
    return tag(
        'div',
        tag('h3', task),
        tag('p', tag('b', sign), answer.predicted or '(nothing)', class_='said'),
        tag('p', f'expected: {answer.expected}', class_='small') if differs else None,
        class_=look,
        style=colour,
    )


def _setup(config: Mapping[str, Any], environment: Mapping[str, Any]) -> list[Html]:
    """Returns the config and the environment, folded."""
    parts = []
    for label, values in (('Config', config), ('Environment', environment)):
        if values:
            rows = [(breakable(name), text) for name, text in flatten(values)]
            content = tag('div', table([], rows, class_='plain'), class_='card')
            parts.append(tag('details', tag('summary', label), content))
    return parts
