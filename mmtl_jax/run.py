"""A run on its devices: compiled steps, the state, its checkpoints; what the verbs have in common."""

import dataclasses
import os
import pathlib
from typing import Any

import jax

from mmtl_jax.core.files import read_json
from mmtl_jax.core.types import Batch
from mmtl_jax.experiment import Experiment, from_config
from mmtl_jax.training.checkpoint import Checkpoints
from mmtl_jax.training.compilation import CompiledByShape
from mmtl_jax.training.evaluation import Evaluated, evaluate, make_eval_step
from mmtl_jax.training.host import Host
from mmtl_jax.training.mesh import make_mesh, replicated, split
from mmtl_jax.training.selection import higher_is_better, selection_value
from mmtl_jax.training.state import TrainState, init_state
from mmtl_jax.training.step import make_gradient, make_update

FITTED = 'fitted.json'


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment on its devices.

    Attributes:
      experiment: what is run.
      mesh: the devices.
      gradient: `(state without optimizer, batch) -> (gradients, outcome)`, compiled once per shape of the batch.
      update: `(state, gradients, outcome) -> (state, measures)`, compiled once.
      eval_step: `(variables, batch) -> measured`, compiled once per shape of the batch.
    """

    experiment: Experiment
    mesh: jax.sharding.Mesh
    gradient: CompiledByShape
    update: CompiledByShape
    eval_step: CompiledByShape

    def new_state(self) -> TrainState:
        """Returns the state at step 0, on the devices."""
        # The seed is an argument, so that another seed finds this program in the compilation cache.
        return jax.jit(self._init, out_shardings=replicated(self.mesh))(self.experiment.seed)

    def load(self, checkpoints: Checkpoints, step: int) -> tuple[TrainState, Host]:
        """Returns the state and the host's part of a checkpoint."""
        sharding = replicated(self.mesh)
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), jax.eval_shape(self._init, 0)
        )
        state, host = checkpoints.load(step, like)
        return state, Host(**host)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """Takes one step; the state that was passed in is used up."""
        return self.update(state, *self.gradient(lean(state), batch))

    def compile(self, state: TrainState) -> None:
        """Compiles the gradient for every shape that the run will meet."""
        batches = [
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split(self.mesh)), batch)
            for batch in self.experiment.inputs.empty_batches()
        ]
        self.gradient.warm_up([(lean(state), batch) for batch in batches])

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

    def _init(self, seed: int | jax.Array) -> TrainState:
        experiment = self.experiment
        return init_state(
            experiment.model,
            experiment.optimizer,
            experiment.balancer,
            batch=experiment.inputs.empty_batches()[0],
            num_tasks=len(experiment.tasks),
            seed=seed,
            average=experiment.average_decay is not None,
        )


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
    whole = replicated(mesh)
    update = make_update(
        experiment.tasks,
        experiment.optimizer,
        average_decay=experiment.average_decay,
        max_bad_steps=experiment.settings.max_bad_steps,
    )
    gradient = make_gradient(experiment.model, experiment.tasks, experiment.balancer)
    return Run(
        experiment,
        mesh,
        CompiledByShape(gradient, out_shardings=whole),
        CompiledByShape(update, donate_argnums=0, out_shardings=whole),
        CompiledByShape(make_eval_step(experiment.model, experiment.tasks), out_shardings=whole),
    )


def open_checkpoints(workdir: pathlib.Path, experiment: Experiment) -> Checkpoints:
    """Opens the checkpoints of a run directory."""
    settings = experiment.settings
    direction = higher_is_better(settings.best_metric, experiment.tasks)
    return Checkpoints(workdir / 'checkpoints', keep=settings.keep_checkpoints, higher_is_better=direction)


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
