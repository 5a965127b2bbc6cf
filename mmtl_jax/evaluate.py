"""Evaluates a saved run: `python -m mmtl_jax.evaluate --workdir=runs/stamps --split=test`."""

import pathlib
import sys

from absl import flags

from mmtl_jax.command import run_command
from mmtl_jax.core.files import read_json, write_json_atomic
from mmtl_jax.run import best_state, open_checkpoints, open_run, saved_experiment


def evaluate(workdir: pathlib.Path, split: str) -> dict[str, float]:
    """Evaluates the best checkpoint of a run on a split; prints the values and keeps them in `summary.json`.

    Raises:
      ValueError: the workdir holds no trained run, or there is no such split.
    """
    experiment = saved_experiment(workdir)
    run = open_run(experiment)
    with open_checkpoints(workdir, experiment) as checkpoints:
        state, host = best_state(run, checkpoints)
        values = run.evaluate(state, split).values
    for name, value in sorted(values.items()):
        print(f'{name} {value:.4f}')
    summary_path = workdir / 'summary.json'
    summary = read_json(summary_path) if summary_path.exists() else {'best_step': host.best_step}
    write_json_atomic(summary_path, {**summary, split: values})
    return values


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    workdir = flags.DEFINE_string('workdir', None, 'Directory of a trained run.', flag_values=values)
    split = flags.DEFINE_string(
        'split', 'validation', 'Split to evaluate: train, validation or test.', flag_values=values
    )
    return run_command(__doc__, values, lambda: evaluate(pathlib.Path(workdir.value), split.value))


if __name__ == '__main__':
    sys.exit(main())
