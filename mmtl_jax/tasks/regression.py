"""Tasks whose answer is a vector of numbers."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.types import PyTree
from mmtl_jax.tasks.base import Scorer, Task, at_least, choice, primary_metric, reading


def regression(
    task: str,
    *,
    num_outputs: int = 1,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    kind: str = 'mse',
    delta: float = 1.0,
    primary: str = 'mae',
) -> Task:
    """Returns a task with real numbers; targets `[B, num_outputs]`, or `[B]` for one number.

    Args:
      task: its name.
      num_outputs: how many numbers a row has.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      kind: of the loss: 'mse', 'mae' or 'huber'.
      delta: error at which the Huber loss turns linear.
      primary: 'mae', 'mse' or 'r2'.
    """
    at_least(task, 'num_outputs', num_outputs, 1)
    kinds = {'mse': losses.squared_error, 'mae': losses.absolute_error, 'huber': partial(losses.huber, delta=delta)}
    loss = choice(task, 'kind', kind, kinds)

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        return metrics.r2(
            np.array([np.ravel(target) for target in targets]), np.array([output['value'] for output in outputs])
        )

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        return tuple(', '.join(f'{number:.3g}' for number in np.ravel(row)) for row in (output['value'], target))

    return Task(
        name=task,
        head=heads.Regression(num_outputs, tuple(hidden), dropout_rate),
        loss=lambda values, targets: loss(values, targets.reshape(values.shape)),
        metrics=lambda values, targets, weights: metrics.regression(values, targets.reshape(values.shape), weights),
        scorer=Scorer(lambda values: {'value': values}, score),
        **primary_metric(task, primary, ['mae', 'mse', 'r2']),
        reads=reading(reads),
        describe=describe,
    )
