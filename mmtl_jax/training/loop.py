"""The loop: step, log, evaluate, save, stop; and go on from where a killed run was."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from mmtl_jax.core.types import Batch
from mmtl_jax.tasks import Task
from mmtl_jax.training.checkpoint import Checkpoints
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.hooks import Clock, stop_on_signals
from mmtl_jax.training.host import Host
from mmtl_jax.training.progress import Progress
from mmtl_jax.training.selection import higher_is_better, selection_value
from mmtl_jax.training.state import TrainState
from mmtl_jax.training.writer import MetricsWriter

# Steps that the host may run ahead of the devices: enough to keep them busy, few enough to notice a signal soon.
IN_FLIGHT = 2


class Batches(Protocol):
    """An endless iterator of batches on the devices, whose exact position can be saved."""

    def __next__(self) -> Batch:
        """Returns the next batch."""

    def get_state(self) -> dict[str, Any]:
        """Returns the position of the next batch, JSON-able, and how many rows so far were bad (`num_bad`)."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long, and how often.

    Attributes:
      num_steps: length of the run.
      log_every: steps between lines of training metrics.
      eval_every: steps between evaluations on the validation split; a checkpoint follows each.
      best_metric: `<task>/<metric>` of the validation split by which the best checkpoint is chosen, or `'primary'`: the
        mean over the tasks of their primary metric, lower-is-better ones counted as 1 minus the value.
      patience: stop after this many evaluations without a better value, or None.
      max_bad_steps: stop after this many non-finite steps of a task, or of all, in a row.
      keep_checkpoints: how many of the latest checkpoints are kept beside the best.
    """

    num_steps: int
    log_every: int = 50
    eval_every: int = 500
    best_metric: str = 'primary'
    patience: int | None = None
    max_bad_steps: int = 50
    keep_checkpoints: int = 1

    def __post_init__(self):
        """Checks the numbers."""
        for name in ('num_steps', 'log_every', 'eval_every', 'max_bad_steps', 'keep_checkpoints'):
            if getattr(self, name) < 1:
                raise ValueError(f'training.{name} is {getattr(self, name)}; it must be at least 1.')
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f'training.patience is {self.patience}; it must be at least 1, or None to never stop early.'
            )


@dataclasses.dataclass(frozen=True)
class Loop:
    """The pieces that a run is made of; `fit` puts them in motion.

    `measure` gives `gramian [T, T]` and `active [T]` of the tasks' gradients, or None for a batch of a shape that it is
    not compiled for; it is called each `measure_every` steps, or never if that is None. `validated` takes the state and
    the values of an evaluation, and gives the state after it.
    """

    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
    evaluate: Callable[[TrainState], Evaluated]
    batches: Batches
    batch_size: int
    tasks: Sequence[Task]
    schedule: Callable[[int], float]
    settings: Settings
    checkpoints: Checkpoints
    writer: MetricsWriter
    progress: Progress
    clock: Clock
    measure: Callable[[TrainState, Batch], dict[str, Any] | None] = lambda state, batch: None
    measure_every: int | None = None
    validated: Callable[[TrainState, Mapping[str, float]], TrainState] = lambda state, values: state

    def fit(self, state: TrainState, host: Host) -> TrainState:
        """Trains until the last step, early stopping or a signal, and returns the state; `host` is brought up to date.

        Raises:
          ValueError: too many non-finite steps in a row.
          KeyboardInterrupt: SIGINT or SIGTERM came; the current step was saved first.
        """
        settings, clock = self.settings, self.clock
        step, in_flight = int(state.step), collections.deque()
        with stop_on_signals() as stop:
            while step < settings.num_steps and not self._out_of_patience(host):
                with clock.measure('input_wait'):
                    batch = next(self.batches)
                if host.gradients_are_due(step, self.measure_every):
                    self._measure(step, state, batch, host)
                state, measures = self.train_step(state, batch)
                step, clock.steps = step + 1, clock.steps + 1
                in_flight.append(measures)
                if len(in_flight) > IN_FLIGHT:
                    host.account(jax.device_get(in_flight.popleft()), self.tasks)
                self.progress.update(step)
                evaluating = step % settings.eval_every == 0 or step == settings.num_steps
                logging = evaluating or step % settings.log_every == 0
                if not (logging or stop.is_set()):
                    continue
                while in_flight:
                    host.account(jax.device_get(in_flight.popleft()), self.tasks)
                self._check_bad_runs(state)
                if logging:
                    self._log(step, host)
                if evaluating:
                    state = self._evaluate(step, state, host)
                if evaluating or stop.is_set():
                    # After the lines of this step are written: a kill in between costs nothing and doubles nothing.
                    self._save(step, state, host)
                if stop.is_set():
                    raise KeyboardInterrupt(f'stopped at step {step}, which is saved; the same command continues.')
        return state

    def _measure(self, step: int, state: TrainState, batch: Batch, host: Host) -> None:
        found = self.measure(state, batch)
        if found is not None:
            host.account_gradients(jax.device_get(found), self.tasks)
            host.measured_step = step

    def _log(self, step: int, host: Host) -> None:
        speed = self.clock.steps * self.batch_size / self.clock.training
        bad = self.batches.get_state().get('num_bad', 0)
        values = {
            **host.flush(),
            **({'bad_examples': float(bad)} if bad else {}),
            'learning_rate': float(self.schedule(step - 1)),
            'examples_per_second': speed,
            'input_wait': self.clock.spent['input_wait'] / self.clock.training,
        }
        self.writer.write(step, 'train', values)
        losses = {task.name: values[f'{task.name}/loss'] for task in self.tasks if f'{task.name}/loss' in values}
        self.progress.update(step, losses, speed)

    def _evaluate(self, step: int, state: TrainState, host: Host) -> TrainState:
        with self.clock.measure('evaluation'):
            values = self.evaluate(state).values
        self.writer.write(step, 'validation', values)
        metric = self.settings.best_metric
        value = selection_value(values, self.tasks, metric)
        best = host.judge(step, value, higher_is_better=higher_is_better(metric, self.tasks))
        names = [f'{task.name}/{task.primary}' for task in self.tasks]
        scores = '  '.join(f'{name} {values[name]:.3f}' for name in names if name in values)
        self.progress.log(f'step {step}  {scores}{"  (best so far)" if best else ""}')
        return self.validated(state, values)

    def _save(self, step: int, state: TrainState, host: Host) -> None:
        host.data = self.batches.get_state()
        with self.clock.measure('checkpoint'):
            value = host.best_value if host.best_step == step else None
            self.checkpoints.save(step, state, dataclasses.asdict(host), value)

    def _out_of_patience(self, host: Host) -> bool:
        return self.settings.patience is not None and host.evaluations_since_best >= self.settings.patience

    def _check_bad_runs(self, state: TrainState) -> None:
        names = [f'the task {task.name!r}' for task in self.tasks] + ['the summed gradient']
        for name, run in zip(names, np.asarray(state.bad_run), strict=True):
            if run >= self.settings.max_bad_steps:
                raise ValueError(
                    f'{name} was not finite in {run} steps in a row, up to step {int(state.step)}; lower the learning '
                    'rate, clip the gradient (optimizer.clip_norm) or look for broken values in its data.'
                )
