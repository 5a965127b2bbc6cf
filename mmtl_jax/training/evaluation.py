"""Evaluation of a split: sums and counts on the devices, corpus scores on the host."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.model import is_fused, modalities_of
from mmtl_jax.tasks import Task
from mmtl_jax.training.inspection import INTERMEDIATES, weight_sums
from mmtl_jax.training.objective import masked_sum, row_weights


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a pass over a split gave.

    Attributes:
      values: `<task>/<metric>` -> value over the whole split; a task without a labelled row has none. Of a fusion that
        weighs modalities, also `modalities/<modality>/weight`, the mean.
      rows: the split's row indices in the order in which they came, without padding.
      outputs: task -> reduced output of each row, in the order of `rows`.
      targets: task -> target of each row, None where it has no label.
      blank: rows of which the model saw no modality.
    """

    values: dict[str, float]
    rows: list[int]
    outputs: dict[str, list[PyTree]]
    targets: dict[str, list[PyTree | None]]
    blank: int = 0


def make_eval_step(model: nn.Module, tasks: Sequence[Task]) -> Callable[[dict[str, Any], Batch], dict[str, Any]]:
    """Returns the pure step `(variables, batch) -> {'sums': {task: {name: (sum, count)}}, 'outputs': {task: ...}}`.

    The sums also have the weights of the modalities, under `'modalities'`, where the fusion gives them.
    """

    def eval_step(variables, batch):
        predictions, sown = model.apply(variables, batch, train=False, mutable=[INTERMEDIATES])
        sums, outputs = weight_sums(sown, batch), {}
        for task in tasks:
            weights = row_weights(batch, task.name)
            predicted = predictions[task.name]
            targets = hide_unlabelled(batch.targets[task.name], weights > 0)
            loss = (masked_sum(task.loss(predicted, targets), weights), weights.sum())
            sums[task.name] = {'loss': loss, **task.metrics(predicted, targets, weights)}
            if task.scorer is not None:
                outputs[task.name] = task.scorer.reduce(predicted)
        return {'sums': sums, 'outputs': outputs}

    return eval_step


def evaluate(
    eval_step: Callable[[dict[str, Any], Batch], dict[str, Any]],
    variables: dict[str, Any],
    loader: Iterable[tuple[np.ndarray, Batch]],
    tasks: Sequence[Task],
) -> Evaluated:
    """Returns metrics and per-row outputs over everything that `loader` gives.

    Args:
      eval_step: from `make_eval_step`, jitted with replicated outputs.
      variables: `state.inference`.
      loader: yields row indices `[B]`, -1 for padding, and batches.
      tasks: the tasks of the step.
    """
    (found,) = _evaluate_views(eval_step, variables, loader, tasks, [lambda batch: batch])
    return found


def evaluate_subsets(
    eval_step: Callable[[dict[str, Any], Batch], dict[str, Any]],
    variables: dict[str, Any],
    loader: Iterable[tuple[np.ndarray, Batch]],
    tasks: Sequence[Task],
    subsets: Sequence[tuple[str, ...]],
) -> dict[tuple[str, ...], Evaluated]:
    """Returns what the model does with each subset of the modalities, all others absent, in one pass over the data.

    Every batch is read and brought to the devices once. A subset is a mask, so that the step compiled for all
    modalities serves every subset. Every subset is measured on the same rows, also on those that have none of its
    modalities (`Evaluated.blank`).

    Args:
      eval_step: as in `evaluate`, and so are the next three.
      variables: see there.
      loader: see there.
      tasks: see there.
      subsets: names of modalities; the empty subset is what a model says that sees nothing.
    """
    views = [functools.partial(keep_modalities, modalities=subset) for subset in subsets]
    return dict(zip(subsets, _evaluate_views(eval_step, variables, loader, tasks, views), strict=True))


def is_asked(task: Task, modalities: Collection[str]) -> bool:
    """Returns whether a task has something to read: the fused features, or one of these modalities."""
    return is_fused(task.reads) or not set(modalities).isdisjoint(modalities_of(task.reads))


def keep_modalities(batch: Batch, modalities: Collection[str]) -> Batch:
    """Returns the batch in which every modality but `modalities` is absent from all rows."""

    def absent(present: Array) -> Array:
        return jax.device_put(np.zeros(present.shape, bool), present.sharding)

    present = {name: mask if name in modalities else absent(mask) for name, mask in batch.present.items()}
    return batch.replace(present=present)


def _evaluate_views(
    eval_step: Callable[[dict[str, Any], Batch], dict[str, Any]],
    variables: dict[str, Any],
    loader: Iterable[tuple[np.ndarray, Batch]],
    tasks: Sequence[Task],
    views: Sequence[Callable[[Batch], Batch]],
) -> list[Evaluated]:
    """Returns what the model does with each view of the batches."""
    tallies = [_Tally(tasks) for _ in views]
    for indices, batch in loader:
        real = np.flatnonzero(indices >= 0)
        host_targets, labelled, usable = jax.device_get((batch.targets, batch.labelled, batch.real))
        targets = {
            task.name: [
                jax.tree.map(lambda leaf, r=row: leaf[r], host_targets[task.name]) if labelled[task.name][row] else None
                for row in real
            ]
            for task in tasks
        }
        for view, tally in zip(views, tallies, strict=True):
            seen = view(batch)
            tally.add(indices[real], real, jax.device_get(eval_step(variables, seen)), targets)
            present = np.any(jax.device_get(list(seen.present.values())), axis=0)
            tally.blank += int(np.sum(usable & ~present))
    return [tally.evaluated() for tally in tallies]


class _Tally:
    """What one view of the batches so far gave."""

    def __init__(self, tasks: Sequence[Task]):
        self._tasks = tasks
        self._totals: dict[str, dict[str, np.ndarray]] = {task.name: {} for task in tasks}
        self._rows: list[int] = []
        self._outputs: dict[str, list] = {task.name: [] for task in tasks if task.scorer is not None}
        self._targets: dict[str, list] = {task.name: [] for task in tasks}
        self.blank = 0

    def add(self, rows: np.ndarray, places: np.ndarray, measured: dict[str, Any], targets: dict[str, list]) -> None:
        """Takes in a batch: the row indices `rows` at `places` of it, what the step measured, the rows' targets."""
        for task, sums in measured['sums'].items():
            for name, pair in sums.items():
                totals = self._totals.setdefault(task, {})
                totals[name] = totals.get(name, 0.0) + np.asarray(pair, np.float64)
        self._rows.extend(int(row) for row in rows)
        for task, value in measured['outputs'].items():
            self._outputs[task].extend(jax.tree.map(lambda leaf, p=place: leaf[p], value) for place in places)
        for task, values in targets.items():
            self._targets[task].extend(values)

    def evaluated(self) -> Evaluated:
        """Returns the sums divided by the counts, and the corpus scores."""
        values = {
            f'{task}/{name}': float(pair[0] / pair[1])
            for task, sums in self._totals.items()
            for name, pair in sums.items()
            if pair[1] > 0
        }
        values |= corpus_scores(self._tasks, self._outputs, self._targets)
        return Evaluated(values, self._rows, self._outputs, self._targets, self.blank)


def corpus_scores(tasks: Sequence[Task], outputs: dict[str, list], targets: dict[str, list]) -> dict[str, float]:
    """Returns `<task>/<score>` over the labelled rows of each task that has a scorer."""
    scores = {}
    for task in tasks:
        if task.scorer is None:
            continue
        pairs = [p for p in zip(outputs[task.name], targets[task.name], strict=True) if p[1] is not None]
        if pairs:
            found = task.scorer.score([output for output, _ in pairs], [target for _, target in pairs])
            scores.update({f'{task.name}/{name}': float(value) for name, value in found.items()})
    return scores
