"""What is made of a finished run: `summary.json`, `resources.json`, figures and `report.html`."""

import dataclasses
import pathlib
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmtl_jax.core.files import read_json, write_json_atomic
from mmtl_jax.experiment import Experiment, Results
from mmtl_jax.metrics import Reliability, reliability
from mmtl_jax.model import FUSED
from mmtl_jax.reporting import (
    Answer,
    Attended,
    Evaluation,
    FeatureMap,
    Sample,
    Scene,
    confusion_matrix,
    embed,
    update_report,
    write_figures,
    write_report,
)
from mmtl_jax.reporting.features import FEWEST
from mmtl_jax.tasks import Task, primaries_of
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.hooks import Clock
from mmtl_jax.training.host import Host
from mmtl_jax.training.inspection import Inspected
from mmtl_jax.training.progress import parameter_counts
from mmtl_jax.training.state import TrainState
from mmtl_jax.training.writer import read_metrics

RESOURCES = 'resources.json'
TOLD = 20  # bad examples by name


def write_results(
    workdir: pathlib.Path,
    experiment: Experiment,
    state: TrainState,
    host: Host,
    evaluated: Mapping[str, Evaluated],
    resources: Mapping[str, Any],
    inspected: Inspected | None = None,
) -> None:
    """Writes `summary.json`, `resources.json`, `figures/` and `report.html` of a run.

    Args:
      workdir: the run directory.
      experiment: the run.
      state: of the best checkpoint.
      host: of the latest checkpoint.
      evaluated: split -> evaluation with the best checkpoint.
      resources: time and devices; see `reporting.write_report`.
      inspected: what the fusion makes of the first split; None draws nothing of it.
    """
    summary = {
        'step': int(max((line['step'] for line in read_metrics(workdir / 'metrics.jsonl')), default=0)),
        'best_step': host.best_step,
        'best_value': host.best_value,
        **{split: found.values for split, found in evaluated.items()},
    }
    write_json_atomic(workdir / 'summary.json', summary)
    bad = experiment.inputs.skipped
    resources = {
        **resources,
        'parameters': parameter_counts(state.params),
        **({'bad_examples': {'skipped': len(bad), 'why': bad[:TOLD]}} if bad else {}),
    }
    # Of the session that trained, not of one that looked again.
    if 'examples_per_second' in resources:
        write_json_atomic(workdir / RESOURCES, {**resources, 'trained_parameters': parameter_counts(state.trained)})
    split = next(iter(evaluated))
    shown = {
        'primaries': primaries_of(experiment.tasks),
        'history': read_metrics(workdir / 'metrics.jsonl'),
        'summary': summary,
        'evaluations': {
            split: {task.name: summarise(task, found) for task in experiment.tasks}
            for split, found in evaluated.items()
        },
        'samples': samples(experiment, split, evaluated[split]),
        **fusion_views(experiment, split, evaluated[split], inspected),
    }
    write_figures(workdir / 'figures', **shown)
    write_report(
        workdir / 'report.html',
        **shown,
        config=experiment.config,
        environment=read_json(workdir / 'environment.json'),
        resources=resources,
        **evaluated_later(workdir, host.best_step),
        title=workdir.name,
    )


def evaluated_later(workdir: pathlib.Path, step: int | None) -> dict[str, dict[str, Any]]:
    """Returns what evaluations of the checkpoint `step` left in a run: 'subsets', 'robustness' -> split -> content."""
    found = {}
    for name in ('subsets', 'robustness'):
        contents = [read_json(path) for path in sorted(workdir.glob(f'{name}-*.json'))]
        found[name] = {content['split']: content for content in contents if content['step'] == step}
    return found


def refresh_report(workdir: pathlib.Path, experiment: Experiment, step: int | None) -> list[pathlib.Path]:
    """Brings what was evaluated since the training into `report.html`; returns it, nothing where the run has none.

    Args:
      workdir: the run directory.
      experiment: the run.
      step: of its best checkpoint.
    """
    path, summary = workdir / 'report.html', workdir / 'summary.json'
    there = path.exists() and summary.exists()
    later = evaluated_later(workdir, step)
    if there and update_report(path, primaries=primaries_of(experiment.tasks), summary=read_json(summary), **later):
        return [path]
    return []


def summarise(task: Task, found: Evaluated) -> Evaluation:
    """Returns a task's scores, its confusion matrix if it has classes, its reliability if it gives probabilities."""
    scores = {name.split('/', 1)[1]: value for name, value in found.values.items() if name.startswith(f'{task.name}/')}
    outputs = found.outputs.get(task.name, [])
    if not (outputs and isinstance(outputs[0], dict)):
        return Evaluation(scores)
    rows = [pair for pair in zip(outputs, found.targets[task.name], strict=True) if pair[1] is not None]
    calibrated = _reliability(rows)
    if not (task.class_names and 'label' in outputs[0]):
        return Evaluation(scores, reliability=calibrated)
    pairs = [(int(target), int(output['label'])) for output, target in rows]
    expected, predicted = np.array(pairs).reshape(-1, 2).T
    matrix = confusion_matrix(expected, predicted, len(task.class_names))
    return Evaluation(scores, matrix, task.class_names, calibrated)


def _reliability(rows: Sequence[tuple[dict[str, Any], Any]]) -> Reliability | None:
    """Returns the bins of confidence over (output, target) of classes or labels, None for other outputs."""
    shapes = {(np.shape(output.get('probabilities')), np.shape(target)) for output, target in rows}
    if len(shapes) != 1:
        return None
    ((probabilities, target),) = shapes
    if len(probabilities) != 1 or target not in ((), probabilities):
        return None
    return reliability(np.array([t for _, t in rows]), np.array([output['probabilities'] for output, _ in rows]))


def samples(experiment: Experiment, split: str, found: Evaluated) -> list[Sample]:
    """Returns examples of a split, evenly spread over it, with the model's answers."""
    places = {row: place for place, row in enumerate(found.rows)}
    return [sample(experiment, split, found, places[row]) for row in chosen_rows(found, experiment.results.num_samples)]


def chosen_rows(found: Evaluated, count: int) -> list[int]:
    """Returns up to `count` rows of a split, evenly spread over the order in which they came."""
    places = np.unique(np.linspace(0, len(found.rows) - 1, min(count, len(found.rows))).astype(int))
    return [found.rows[place] for place in places]


def sample(experiment: Experiment, split: str, found: Evaluated, place: int) -> Sample:
    """Returns the example at a place of an evaluation, with the model's answers."""
    source, row = experiment.inputs.rows(split), found.rows[place]
    shown = _sample(source.example_id(row), source.source[row], experiment.results, {
        task.name: answer(task, found, place)
        for task in experiment.tasks
        if task.describe is not None and found.targets[task.name][place] is not None
    })  # fmt: skip
    return dataclasses.replace(shown, scene=scene(experiment, split, found, place))


def scene(experiment: Experiment, split: str, found: Evaluated, place: int) -> Scene | None:
    """Returns the picture of an example, as the model gets it, with the answers that lie in it; None without any.

    It is the picture that the first such task reads, or else the only one that the model gets.
    """
    asked = [
        task for task in experiment.tasks if task.overlays is not None and found.targets[task.name][place] is not None
    ]
    if not asked:
        return None
    rows = experiment.inputs.rows(split)
    values = rows.preprocess.visit(rows.row(found.rows[place]), None)
    pictures = {
        path: value
        for path, value in values.items()
        if path.startswith('inputs/') and np.ndim(value) == 3 and value.shape[2] in (1, 3)
    }
    image = pictures.get(f'inputs/{asked[0].reads}', next(iter(pictures.values())) if len(pictures) == 1 else None)
    if image is None:
        return None
    pairs = {task.name: (found.outputs[task.name][place], found.targets[task.name][place]) for task in asked}
    return Scene(image, {task.name: task.overlays(*pairs[task.name]) for task in asked})


def fusion_views(
    experiment: Experiment, split: str, found: Evaluated, inspected: Inspected | None
) -> dict[str, FeatureMap | list[Attended] | None]:
    """Returns the map of the fused features, and the examples with their attention, as reports take them."""
    if inspected is None:
        return {}
    places = {row: place for place, row in enumerate(found.rows)}
    attention = [
        Attended(sample(experiment, split, found, places[row]), weights) for row, weights in inspected.attention.items()
    ]
    return {'features': _feature_map(experiment, found, places, inspected), 'attention': attention}


def _feature_map(
    experiment: Experiment, found: Evaluated, places: Mapping[int, int], inspected: Inspected
) -> FeatureMap | None:
    """Returns rows of the split in the plane, by class of each task that reads the fusion and by pattern."""
    usable = np.flatnonzero(np.isfinite(inspected.fused).all(axis=1))
    count = min(experiment.results.num_features, len(usable))
    if count < FEWEST:
        return None
    chosen = usable[np.linspace(0, len(usable) - 1, count).astype(int)]
    groups = {}
    for task in experiment.tasks:
        if task.class_names and task.reads == FUSED:
            targets = [found.targets[task.name][places[row]] for row in inspected.rows[chosen]]
            # One class a row: not masks, nor boxes, which have several.
            if not any(isinstance(target, Mapping) or np.shape(target) for target in targets if target is not None):
                groups[task.name] = [None if t is None else task.class_names[int(t)] for t in targets]
    groups['modalities'] = [
        ' + '.join(name for name, has in sorted(inspected.present.items()) if has[row]) or 'none' for row in chosen
    ]
    return FeatureMap(embed(inspected.fused[chosen]), groups)


def answer(task: Task, found: Evaluated, row: int) -> Answer:
    """Returns one row's prediction and label in words."""
    output, target = found.outputs[task.name][row], found.targets[task.name][row]
    predicted, expected = task.describe(output, target)
    correct = bool(output['label'] == target) if isinstance(output, dict) and 'label' in output else None
    return Answer(predicted, expected, correct)


def _sample(name: str, example: Mapping[str, Any], options: Results, answers: Mapping[str, Answer]) -> Sample:
    def pick(keys):
        return {key: example[key] for key in keys if example.get(key) is not None}

    return Sample(
        id=name,
        images=pick(options.images),
        texts={key: str(value) for key, value in pick(options.texts).items()},
        waveforms={key: (value, options.waveforms[key]) for key, value in pick(options.waveforms).items()},
        tables={
            key: {str(i): round(float(cell), 4) for i, cell in enumerate(row)}
            for key, row in pick(options.tables).items()
        },
        answers=dict(answers),
    )


def resources_of(clock: Clock, batch_size: int) -> dict[str, Any]:
    """Returns what this process used: devices, times, throughput, memory."""
    # Kilobytes everywhere but on macOS.
    unit = 1 if sys.platform == 'darwin' else 1024
    used = {
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'seconds': {'total': clock.total, **clock.spent},
        'peak_memory_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
    return {**used, 'examples_per_second': clock.steps * batch_size / clock.training} if clock.steps else used
