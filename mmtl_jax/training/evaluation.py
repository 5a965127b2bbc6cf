"""Evaluation of a split: sums and counts on the devices, corpus scores on the host."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmtl_jax.core.types import Batch, PyTree
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.tasks import Task
from mmtl_jax.training.objective import masked_sum, row_weights


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a pass over a split gave.

    Attributes:
      values: `<task>/<metric>` -> value over the whole split; a task without a labelled row has none.
      rows: the split's row indices in the order in which they came, without padding.
      outputs: task -> reduced output of each row, in the order of `rows`.
      targets: task -> target of each row, None where it has no label.
    """

    values: dict[str, float]
    rows: list[int]
    outputs: dict[str, list[PyTree]]
    targets: dict[str, list[PyTree | None]]


def make_eval_step(model: nn.Module, tasks: Sequence[Task]) -> Callable[[dict[str, Any], Batch], dict[str, Any]]:
    """Returns the pure step `(variables, batch) -> {'sums': {task: {name: (sum, count)}}, 'outputs': {task: ...}}`."""

    def eval_step(variables, batch):
        predictions = model.apply(variables, batch, train=False)
        sums, outputs = {}, {}
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
    totals: dict[str, dict[str, np.ndarray]] = {task.name: {} for task in tasks}
    rows: list[int] = []
    outputs: dict[str, list] = {task.name: [] for task in tasks if task.scorer is not None}
    targets: dict[str, list] = {task.name: [] for task in tasks}
    for indices, batch in loader:
        measured = jax.device_get(eval_step(variables, batch))
        for task, sums in measured['sums'].items():
            for name, pair in sums.items():
                totals[task][name] = totals[task].get(name, 0.0) + np.asarray(pair, np.float64)
        real = np.flatnonzero(indices >= 0)
        rows.extend(int(row) for row in indices[real])
        for task, value in measured['outputs'].items():
            outputs[task].extend(jax.tree.map(lambda leaf, r=row: leaf[r], value) for row in real)
        host_targets, labelled = jax.device_get((batch.targets, batch.labelled))
        for task in targets:
            targets[task].extend(
                jax.tree.map(lambda leaf, r=row: leaf[r], host_targets[task]) if labelled[task][row] else None
                for row in real
            )
    values = {
        f'{task}/{name}': float(pair[0] / pair[1])
        for task, sums in totals.items()
        for name, pair in sums.items()
        if pair[1] > 0
    }
    return Evaluated({**values, **corpus_scores(tasks, outputs, targets)}, rows, outputs, targets)


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
