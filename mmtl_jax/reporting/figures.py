"""The figures of a run as PNG files, for its `figures/` folder, papers and README files."""

import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mmtl_jax.core.files import write_bytes_atomic
from mmtl_jax.reporting import curves, pictures
from mmtl_jax.reporting.attention import Attended, attention_figure
from mmtl_jax.reporting.calibration import reliability_figures
from mmtl_jax.reporting.features import FeatureMap, feature_map
from mmtl_jax.reporting.gradients import balancing_figures
from mmtl_jax.reporting.modalities import modality_figures
from mmtl_jax.reporting.samples import Evaluation, Sample
from mmtl_jax.reporting.scenes import scene_sheet
from mmtl_jax.reporting.style import to_png

SCENES = 6  # on one sheet


def write_figures(
    directory: str | os.PathLike[str],
    *,
    primaries: curves.Primaries,
    history: curves.History,
    summary: Mapping[str, Any],
    evaluations: Mapping[str, Mapping[str, Evaluation]] | None = None,
    samples: Sequence[Sample] = (),
    features: FeatureMap | None = None,
    attention: Sequence[Attended] = (),
) -> list[pathlib.Path]:
    """Writes every figure for which there is data; returns the files.

    Args:
      directory: folder of the PNG files; made when missing.
      primaries: task -> (primary metric, higher is better); its order fixes the tasks' colours.
      history: rows of `metrics.jsonl`.
      summary: `summary.json`; its `best_step` is marked.
      evaluations: split -> task -> `Evaluation`.
      samples: examples with the model's answers.
      features: the fused features as a map.
      attention: examples with the attention between modalities.

    Raises:
      OSError: a file cannot be written; a full disk is told in one sentence.
    """
    return [
        write_figure(pathlib.Path(directory) / f'{name}.png', figure)
        for name, figure in itertools.chain(
            _figures(primaries, history, summary.get('best_step'), evaluations or {}, samples),
            fusion_figures(features, attention),
        )
    ]


def write_figure(path: pathlib.Path, figure: Figure) -> pathlib.Path:
    """Writes a figure as a PNG, whole or not at all; returns the path.

    Raises:
      OSError: the file cannot be written; a full disk is told in one sentence.
    """
    write_bytes_atomic(path, to_png(figure))
    return path


def fusion_figures(features: FeatureMap | None, attention: Sequence[Attended]) -> Iterator[tuple[str, Figure]]:
    """Yields (file name, figure) of what the fusion makes of a split."""
    if features is not None:
        yield 'features', feature_map(features)
    for index, shown in enumerate(attention):
        yield f'attention_{index}', attention_figure(shown)


def _figures(
    primaries: curves.Primaries,
    history: curves.History,
    best_step: int | None,
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    samples: Sequence[Sample],
) -> Iterator[tuple[str, Figure]]:
    """Yields (file name, figure), one at a time, since figures are large."""
    names, tasks = set(curves.names_in(history)), list(primaries)
    if any(f'{task}/loss' in names for task in tasks):
        yield 'losses', curves.loss_curves(history, tasks, best_step)
    if any(f'{task}/{primary}' in names for task, (primary, _) in primaries.items()):
        yield 'metrics', curves.metric_curves(history, tasks, best_step, primaries, only_primary=True)
    if any(curves.metric_names(history, task) for task in tasks):
        yield 'all_metrics', curves.metric_curves(history, tasks, best_step, primaries)
    yield from balancing_figures(history, tasks)
    yield from modality_figures(history)
    if 'examples_per_second' in names:
        yield 'throughput', curves.throughput(history)
    for split, by_task in evaluations.items():
        for task, evaluation in by_task.items():
            if evaluation.confusion is not None:
                title = f'{task}, {split}'
                figure = pictures.confusion(evaluation.confusion, evaluation.class_names, title)
                yield f'confusion_{split}_{task}', figure
    for split, figure in reliability_figures(evaluations):
        yield f'reliability_{split}', figure
    if samples:
        yield 'samples', pictures.contact_sheet(samples)
    scenes = [sample.scene for sample in samples if sample.scene is not None]
    if scenes:
        yield 'scenes', scene_sheet(scenes[:SCENES])
    heard = next((sample for sample in samples if sample.waveforms), None)
    if heard is not None:
        yield 'spectrogram', pictures.spectrogram(*next(iter(heard.waveforms.values())))
