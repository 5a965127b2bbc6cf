"""Trains: `python -m mmtl_jax.train --config=configs/synthetic.py --workdir=runs/synthetic`; a second call goes on."""

import contextlib
import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import flags
from ml_collections import config_flags

from mmtl_jax.command import run_command
from mmtl_jax.core.files import write_json_atomic
from mmtl_jax.experiment import from_config, plain_config
from mmtl_jax.results import chosen_rows, resources_of, write_results
from mmtl_jax.run import FITTED, Run, best_state, check_fitted, open_checkpoints, open_run
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.hooks import Clock
from mmtl_jax.training.host import Host
from mmtl_jax.training.inspection import Inspected
from mmtl_jax.training.loop import Loop
from mmtl_jax.training.mesh import split
from mmtl_jax.training.progress import Progress, parameter_overview, stderr_console
from mmtl_jax.training.run_directory import METRICS, check_workdir, claim
from mmtl_jax.training.state import TrainState
from mmtl_jax.training.writer import MetricsWriter


def train(config, workdir: pathlib.Path, *, tensorboard: bool = False) -> None:
    """Trains the experiment of `config` in `workdir`, or goes on where it stopped, and writes its results.

    Raises:
      ValueError: anything in the config, the data or the workdir that does not fit.
      KeyboardInterrupt: stopped by a signal, with a checkpoint saved.
    """
    check_workdir(workdir, plain_config(config))
    clock = Clock()
    with clock.measure('data'):
        experiment = from_config(config)
        batches = experiment.inputs.train_batches
        fitted = experiment.fitted
        for name in ('validation', *experiment.results.splits):
            experiment.inputs.check(name)
    check_fitted(workdir, fitted)
    report_skipped(experiment.inputs.skipped)
    run = open_run(experiment)
    claim(workdir, experiment.config)
    write_json_atomic(workdir / FITTED, fitted)

    with open_checkpoints(workdir, experiment) as checkpoints, contextlib.closing(batches(split(run.mesh))) as batches:
        if checkpoints.latest is None:
            state, host = run.new_state(), Host()
            run.check_selection(state)
        else:
            state, host = run.load(checkpoints, checkpoints.latest)
            batches.set_state(host.data)
        first = int(state.step)
        stderr_console().print(parameter_overview(state.params, state.trained))
        with clock.measure('compile'):
            run.compile(state)
        with (
            MetricsWriter(
                workdir / METRICS,
                resume_step=first,
                tensorboard=workdir / 'tensorboard' if tensorboard else None,
            ) as writer,
            Progress(experiment.settings.num_steps, start=first) as progress,
        ):
            loop = Loop(
                train_step=run.train_step,
                evaluate=lambda state: run.evaluate(state, 'validation'),
                batches=batches,
                batch_size=experiment.inputs.batch_size,
                tasks=experiment.tasks,
                schedule=experiment.schedule,
                settings=experiment.settings,
                checkpoints=checkpoints,
                writer=writer,
                progress=progress,
                clock=clock,
                measure=run.measure_gradients,
                measure_every=run.measure_every,
                validated=run.validated,
            )
            loop.fit(state, host)
        best, host = best_state(run, checkpoints)
        with clock.measure('evaluation'):
            evaluated = {name: run.evaluate(best, name) for name in experiment.results.splits}
            shown = inspected_split(run, best, evaluated)
        resources = resources_of(clock, experiment.inputs.batch_size)
        write_results(workdir, experiment, best, host, evaluated, resources, shown)
    stderr_console().print(f'{workdir}/report.html shows what came of it; the numbers are in {workdir}/summary.json.')


def inspected_split(run: Run, state: TrainState, evaluated: Mapping[str, Evaluated]) -> Inspected | None:
    """Returns what the fusion makes of the first split, None where the config draws nothing of it."""
    options, name = run.experiment.results, next(iter(evaluated))
    if not (options.num_features or options.num_attention):
        return None
    return run.inspect(state, name, chosen_rows(evaluated[name], options.num_attention))


def report_skipped(sentences: Sequence[str]) -> None:
    """Says how many examples cannot be used, and what is wrong with the first."""
    if sentences:
        stderr_console().print(f'bad examples that are skipped: {len(sentences)}, the first: {sentences[0]}.')


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        'config', None, 'Path to a config file, with `:argument` if it takes one.', flag_values=values
    )
    workdir = flags.DEFINE_string(
        'workdir', None, 'Directory of the run; an existing run is continued.', flag_values=values
    )
    tensorboard = flags.DEFINE_bool('tensorboard', False, 'Also write event files for TensorBoard.', flag_values=values)
    return run_command(
        __doc__,
        values,
        lambda: train(config.value, pathlib.Path(workdir.value), tensorboard=tensorboard.value),
        required=('config', 'workdir'),
    )


if __name__ == '__main__':
    sys.exit(main())
