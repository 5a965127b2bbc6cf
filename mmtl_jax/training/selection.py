"""Which checkpoint is the best: one value per evaluation, and its direction."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmtl_jax import metrics
from mmtl_jax.tasks import Task

PRIMARY = 'primary'


def selection_value(values: Mapping[str, float], tasks: Sequence[Task], metric: str) -> float:
    """Returns the value by which checkpoints are compared.

    Args:
      values: `<task>/<metric>` -> value, of an evaluation.
      tasks: the run's tasks.
      metric: `<task>/<metric>`, or `'primary'`: the mean of the tasks' primary metrics, where lower-is-better ones
        count as 1 - value.

    Raises:
      ValueError: the evaluation lacks the metric.
    """
    if metric != PRIMARY:
        if metric not in values:
            raise ValueError(
                f'training.best_metric is {metric!r}, but an evaluation gives {sorted(values)}; name one of them, or '
                "'primary'."
            )
        return values[metric]
    primaries = [(f'{task.name}/{task.primary}', task.higher_is_better) for task in tasks]
    found = [values[name] if higher else 1.0 - values[name] for name, higher in primaries if name in values]
    if not found:
        raise ValueError(f'no task has its primary metric on the validation split, which gave {sorted(values)}.')
    return float(np.mean(found))


def higher_is_better(metric: str, tasks: Sequence[Task]) -> bool:
    """Returns the direction of `metric`.

    Raises:
      ValueError: it names no task of the run.
    """
    if metric == PRIMARY:
        return True
    name, _, measure = metric.partition('/')
    for task in tasks:
        if task.name == name:
            return task.higher_is_better if measure == task.primary else metrics.higher_is_better(measure)
    names = [task.name for task in tasks]
    raise ValueError(f"training.best_metric is {metric!r}; give 'primary' or '<task>/<metric>', task of {names}.")
