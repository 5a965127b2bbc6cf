"""A run on its devices: compiled steps, the state, its checkpoints; what the verbs have in common."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.core.allocator import keep_freed_memory
from mmtl_jax.core.files import plain, read_json
from mmtl_jax.core.types import Batch, PyTree
from mmtl_jax.experiment import Experiment, from_config
from mmtl_jax.model import FUSED
from mmtl_jax.training.checkpoint import Checkpoints
from mmtl_jax.training.compilation import CompiledByShape, warm_up
from mmtl_jax.training.evaluation import Evaluated, evaluate, make_eval_step
from mmtl_jax.training.gradient import make_gradient, make_measure
from mmtl_jax.training.host import Host
from mmtl_jax.training.inspection import Inspected, inspect, make_look
from mmtl_jax.training.mesh import make_mesh, replicated, split
from mmtl_jax.training.modulation import with_modulation
from mmtl_jax.training.run_directory import METRICS
from mmtl_jax.training.selection import higher_is_better, selection_value
from mmtl_jax.training.state import TrainState, init_state
from mmtl_jax.training.update import make_look_back, make_update

FITTED = 'fitted.json'


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment on its devices.

    Attributes:
      experiment: what is run.
      mesh: the devices.
      gradient: `(state without optimizer, batch) -> (gradients, outcome)`, compiled once per shape of the batch.
      update: `(state, gradients, outcome) -> (state, measures)`, compiled once.
      look_back: `(state, batch, active) -> balancer state` after the update, for a balancer that looks at what the
        step did; compiled once per shape of the batch. None for the others.
      measure: `(state without optimizer, batch) -> {'gramian', 'active'}` of the tasks' gradients, for a balancer that
        needs none; compiled for the first shape alone.
      eval_step: `(variables, batch) -> measured`, compiled once per shape of the batch.
    """

    experiment: Experiment
    mesh: jax.sharding.Mesh
    gradient: CompiledByShape
    update: CompiledByShape
    look_back: CompiledByShape | None
    measure: CompiledByShape | None
    eval_step: CompiledByShape

    def new_state(self) -> TrainState:
        """Returns the state at step 0, on the devices."""
        # The seed is an argument, so that another seed finds this program in the compilation cache.
        init = jax.jit(self._make_init(), out_shardings=replicated(self.mesh))
        return init(self.experiment.seed, self.experiment.pretrained)

    def load(self, checkpoints: Checkpoints, step: int) -> tuple[TrainState, Host]:
        """Returns the state and the host's part of a checkpoint."""
        sharding = replicated(self.mesh)
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            jax.eval_shape(self._make_init(), 0),
        )
        state, host = checkpoints.load(step, like)
        return state, Host(**host)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """Takes one step; the state that was passed in is used up."""
        state, measures = self.update(state, *self.gradient(lean(state), batch))
        if self.look_back is not None:
            state = state.replace(balancer=self.look_back(lean(state), batch, measures['active']))
        return state, measures

    def validated(self, state: TrainState, values: Mapping[str, float]) -> TrainState:
        """Returns the state after an evaluation that gave `values`, for a balancer that looks at it."""
        balancer, names = self.experiment.balancer, [f'{task.name}/loss' for task in self.experiment.tasks]
        if balancer.validated is None:
            return state
        known = jnp.array([name in values for name in names])
        losses = jnp.array([values.get(name, 0.0) for name in names])
        look = jax.jit(balancer.validated, out_shardings=replicated(self.mesh))
        return state.replace(balancer=look(losses, known, state.balancer))

    def measure_gradients(self, state: TrainState, batch: Batch) -> dict[str, Any] | None:
        """Returns Gramian and activity of the tasks' gradients, or None for a batch of a shape that is not measured."""
        if self.measure is None or not self.measure.knows(lean(state), batch):
            return None
        return self.measure(lean(state), batch)

    @property
    def measure_every(self) -> int | None:
        """Steps between two measurements of the tasks' gradients; None where the steps themselves give them."""
        return None if self.measure is None else self.experiment.jacobian.record_every

    def compile(self, state: TrainState) -> None:
        """Compiles what depends on the batch for every shape that the run will meet."""
        batches = [
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split(self.mesh)), batch)
            for batch in self.experiment.inputs.empty_batches()
        ]
        calls = [(self.gradient, (lean(state), batch)) for batch in batches]
        if self.look_back is not None:
            active = jax.ShapeDtypeStruct((len(self.experiment.tasks),), bool, sharding=replicated(self.mesh))
            calls += [(self.look_back, (lean(state), batch, active)) for batch in batches]
        if self.measure is not None:
            calls.append((self.measure, (lean(state), batches[0])))
        warm_up(calls)

    def check_selection(self, state: TrainState) -> None:
        """Checks that evaluations will give the metric by which the best checkpoint is chosen.

        Raises:
          ValueError: they will not; the sentence says what they give.
        """
        experiment, values, failure = self.experiment, {}, None
        for item in experiment.inputs.eval_batches('validation', split(self.mesh)):
            values |= evaluate(self.eval_step, state.inference, [item], experiment.tasks).values
            try:
                selection_value(values, experiment.tasks, experiment.settings.best_metric)
                return
            except ValueError as error:  # the labels of a task may all stand in later batches
                failure = error
        raise failure

    def evaluate(self, state: TrainState, split_name: str) -> Evaluated:
        """Returns metrics and outputs of a split under `state`."""
        batches = self.experiment.inputs.eval_batches(split_name, split(self.mesh))
        return evaluate(self.eval_step, state.inference, batches, self.experiment.tasks)

    def inspect(self, state: TrainState, split_name: str, chosen: Collection[int]) -> Inspected | None:
        """Returns what the fusion makes of a split, with its attention on some rows; None if no task reads it."""
        if all(task.reads != FUSED for task in self.experiment.tasks):
            return None
        look = jax.jit(make_look(self.experiment.model), out_shardings=replicated(self.mesh))
        batches = self.experiment.inputs.eval_batches(split_name, split(self.mesh))
        return inspect(look, state.inference, batches, chosen)

    def _make_init(self) -> Callable[..., TrainState]:
        """Returns `(seed, start=None) -> state` at step 0, to be traced."""
        experiment = self.experiment
        # Made here, since it reads the data: what happens while a program is traced becomes part of it.
        batch = experiment.inputs.empty_batches()[0]

        def init(seed: int | jax.Array, start: Mapping[str, PyTree] | None = None) -> TrainState:
            return init_state(
                experiment.model,
                experiment.optimizer,
                experiment.balancer,
                batch=batch,
                num_tasks=len(experiment.tasks),
                seed=seed,
                average=experiment.average_decay is not None,
                level=experiment.jacobian.level,
                start=start,
            )

        return init


def lean(state: TrainState) -> TrainState:
    """Returns the state without what the gradient does not need."""
    return state.replace(optimizer=None, average=None, bad_run=None)


def open_run(experiment: Experiment) -> Run:
    """Puts an experiment on its devices."""
    devices = experiment.devices
    if devices.compilation_cache is not None:
        jax.config.update('jax_compilation_cache_dir', os.path.expanduser(devices.compilation_cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
    mesh = make_mesh(devices.num_devices, batch_size=experiment.inputs.batch_size)
    if jax.default_backend() == 'cpu':
        keep_freed_memory()
    whole = replicated(mesh)
    model, tasks, balancer, jacobian = experiment.model, experiment.tasks, experiment.balancer, experiment.jacobian
    gradient = make_gradient(model, tasks, balancer, jacobian)
    if experiment.ogm_ge is not None:
        gradient = with_modulation(gradient, model, tasks, experiment.ogm_ge)
    update = make_update(
        tasks,
        experiment.optimizer,
        average_decay=experiment.average_decay,
        max_bad_steps=experiment.settings.max_bad_steps,
    )
    look_back = measure = None
    if balancer.after is not None:
        look_back = CompiledByShape(make_look_back(model, tasks, balancer), out_shardings=whole)
    if balancer.needs == 'losses' and len(tasks) > 1 and jacobian.record_every is not None:
        measure = CompiledByShape(make_measure(model, tasks, jacobian), out_shardings=whole)
    return Run(
        experiment,
        mesh,
        CompiledByShape(gradient, out_shardings=whole),
        CompiledByShape(update, donate_argnums=0, out_shardings=whole),
        look_back,
        measure,
        CompiledByShape(make_eval_step(model, tasks), out_shardings=whole),
    )


def open_checkpoints(workdir: pathlib.Path, experiment: Experiment) -> Checkpoints:
    """Opens the checkpoints of a run directory."""
    settings = experiment.settings
    direction = higher_is_better(settings.best_metric, experiment.tasks)
    return Checkpoints(workdir / 'checkpoints', keep=settings.keep_checkpoints, higher_is_better=direction)


def check_fitted(workdir: pathlib.Path, fitted: Mapping[str, Any]) -> None:
    """Checks, without writing, that a run which goes on meets the data and the published weights that it began with.

    Raises:
      ValueError: it does not; the sentence says what is different.
    """
    if not (workdir / METRICS).exists() or not (workdir / FITTED).exists():
        return
    saved, now = read_json(workdir / FITTED), plain(fitted)
    different = sorted(key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key))
    if different:
        raise ValueError(
            f'{workdir} holds a run that began with other data or weights: its {different[0]} '
            f'({workdir / FITTED}) are not those of today; bring them back, or choose a new --workdir.'
        )


def saved_experiment(workdir: pathlib.Path) -> Experiment:
    """Returns the experiment of a run directory, from what it saved alone.

    Raises:
      ValueError: the directory holds no run.
    """
    if not (workdir / 'config.json').exists():
        raise ValueError(f'--workdir={workdir} holds no run (no config.json); give the --workdir of a training.')
    if not (workdir / FITTED).exists():
        raise ValueError(f'--workdir={workdir} holds a run that has not begun to train; train it first.')
    return from_config(read_json(workdir / 'config.json'), fitted=read_json(workdir / FITTED))


def best_state(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Host]:
    """Returns the state of the best checkpoint, with the host's part of the latest.

    Raises:
      ValueError: there is no checkpoint.
    """
    if checkpoints.latest is None:
        raise ValueError(f'{checkpoints.directory} has no checkpoint yet; train the run first.')
    latest, host = run.load(checkpoints, checkpoints.latest)
    if host.best_step in (None, checkpoints.latest):
        return latest, host
    return run.load(checkpoints, host.best_step)[0], host


@contextlib.contextmanager
def trained(workdir: pathlib.Path, experiment: Experiment) -> Iterator[tuple[Run, TrainState, Host]]:
    """Gives the run, the state of its best checkpoint, and the host's part of the latest.

    Raises:
      ValueError: there is no checkpoint.
    """
    run = open_run(experiment)
    with open_checkpoints(workdir, experiment) as checkpoints:
        state, host = best_state(run, checkpoints)
        yield run, state, host
