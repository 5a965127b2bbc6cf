"""What the host remembers between checkpoints, so that a resumed run reports the same numbers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmtl_jax.tasks import Task
from mmtl_jax.training.conflicts import conflict_measures


@dataclasses.dataclass
class Host:
    """The host's part of a checkpoint, JSON-able.

    Attributes:
      data: position of the next batch.
      best_step: step of the best evaluation so far.
      best_value: its value.
      evaluations_since_best: evaluations without a better value since.
      pending: name -> [sum, count] of the measures since the last line of training metrics.
      skipped: steps that sat out whole because their summed gradient was not finite.
      measured_step: the step before which the tasks' gradients were measured last, for a balancer that needs none.
    """

    data: dict[str, Any] | None = None
    best_step: int | None = None
    best_value: float | None = None
    evaluations_since_best: int = 0
    pending: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    skipped: int = 0
    measured_step: int | None = None

    def account(self, measures: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        """Adds one step's measures, fetched from the devices, to the sums that wait to be written."""
        for index, task in enumerate(tasks):
            count = float(measures['counts'][index])
            self._add(f'{task.name}/loss', float(measures['losses'][index]) * count, count)
            if measures['weights'] is not None:
                self._add(f'{task.name}/weight', float(measures['weights'][index]), 1.0)
            self._add(f'{task.name}/bad_steps', float(measures['bad'][index]), 0.0)
            if count:
                for metric, (total, number) in measures['metrics'][task.name].items():
                    self._add(f'{task.name}/{metric}', float(total), float(number))
        self._add('grad_norm', float(measures['grad_norm']), 1.0)
        for name, value in measures['recorded'].items():
            self._add(name, float(value), 1.0)
        self.skipped += int(measures['bad'][-1])
        if measures['gramian'] is not None:
            self.account_gradients(measures, tasks)

    def account_gradients(self, measures: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        """Adds norms, cosines and conflicts of the tasks' gradients, from `gramian [T, T]` and `active [T]`."""
        names = [task.name for task in tasks]
        for name, total, count in conflict_measures(measures['gramian'], measures['active'], names):
            self._add(name, total, count)

    def gradients_are_due(self, step: int, every: int | None) -> bool:
        """Returns whether `every` steps have passed since the tasks' gradients were measured."""
        return every is not None and (self.measured_step is None or step - self.measured_step >= every)

    def flush(self) -> dict[str, float]:
        """Returns the means since the last flush, and the number of bad steps of each task that had any."""
        pending, self.pending = self.pending, {}
        means = {name: total / count for name, (total, count) in pending.items() if count > 0}
        bad = {name: total for name, (total, _) in pending.items() if name.endswith('/bad_steps') and total > 0}
        return {**means, **bad, 'skipped_steps': float(self.skipped)}

    def judge(self, step: int, value: float, *, higher_is_better: bool) -> bool:
        """Takes note of an evaluation's value; returns whether it is the best so far, which NaN never is."""
        sign = 1.0 if higher_is_better else -1.0
        best = -math.inf if self.best_value is None else sign * self.best_value
        if sign * value > best:
            self.best_step, self.best_value, self.evaluations_since_best = step, value, 0
            return True
        self.evaluations_since_best += 1
        return False

    def _add(self, name: str, total: float, count: float) -> None:
        before = self.pending.get(name, [0.0, 0.0])
        self.pending[name] = [before[0] + total, before[1] + count]
