"""Predicts with a saved run: `python -m mmtl_jax.predict --workdir=runs/stamps --split=test --out=answers.jsonl`."""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags

from mmtl_jax.command import run_command
from mmtl_jax.core.files import plain, write_bytes_atomic
from mmtl_jax.results import answer
from mmtl_jax.run import Run, saved_experiment, trained
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.progress import stderr_console


def predict(workdir: pathlib.Path, split: str, out: pathlib.Path) -> None:
    """Writes the best checkpoint's predictions for a split, one JSON object a line.

    A line has the example's `id` and per task `output` (numbers) and, where the row is labelled and the task can be put
    in words, `predicted` and `expected`.

    Raises:
      ValueError: the workdir holds no trained run, there is no such split, or `out` exists.
    """
    if out.exists():
        raise ValueError(f'--out={out} exists; choose another name, nothing is overwritten.')
    with trained(workdir, saved_experiment(workdir)) as (run, state, _):
        found = run.evaluate(state, split)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(out, ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in _lines(run, split, found)))
    stderr_console().print(f'{len(found.rows)} predictions are in {out}.')


def _lines(run: Run, split: str, found: Evaluated) -> Iterator[dict[str, Any]]:
    source = run.experiment.inputs.rows(split)
    for row, index in enumerate(found.rows):
        line: dict[str, Any] = {'id': source.example_id(index)}
        for task in run.experiment.tasks:
            if task.name not in found.outputs:
                continue
            line[task.name] = {'output': plain(found.outputs[task.name][row])}
            if task.describe is not None and found.targets[task.name][row] is not None:
                words = answer(task, found, row)
                line[task.name] |= {'predicted': words.predicted, 'expected': words.expected}
        yield line


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    workdir = flags.DEFINE_string('workdir', None, 'Directory of a trained run.', flag_values=values)
    split = flags.DEFINE_string('split', 'test', 'Split to predict: train, validation or test.', flag_values=values)
    out = flags.DEFINE_string(
        'out', None, 'File to write, one JSON object a line; it must not exist.', flag_values=values
    )
    return run_command(
        __doc__,
        values,
        lambda: predict(pathlib.Path(workdir.value), split.value, pathlib.Path(out.value)),
        required=('workdir', 'out'),
    )


if __name__ == '__main__':
    sys.exit(main())
