"""What experiments share: their command line, training what is missing, tables of mean and deviation over seeds."""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from mmtl_jax.command import run_command
from mmtl_jax.core.files import read_json

COSTS = ('parameters', 'ms a step', 'training, s')
# A difference between rows counts when it is more than so many standard deviations.
DEVIATIONS = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line of an experiment.

    Attributes:
      runs: directory of the runs, each in a folder `<row>-<seed>`.
      out: the page to write.
      seeds: seeds per row.
      train: whether to train what is missing.
      rows: names of the rows to train.
      steps: of each training, where the experiment has them on its command line.
    """

    runs: pathlib.Path
    out: pathlib.Path
    seeds: int
    train: bool
    rows: tuple[str, ...]
    steps: int | None = None

    def of_row(self, row: str) -> list[pathlib.Path]:
        """Returns the folders of a row's runs that are finished."""
        folders = [self.runs / f'{row}-{seed}' for seed in range(self.seeds)]
        return [folder for folder in folders if (folder / 'summary.json').exists()]


def run_experiment(
    what: str,
    work: Callable[[Options], None],
    *,
    rows: Iterable[str],
    out: str,
    runs: str = 'runs/results',
    steps: int | None = None,
) -> int:
    """Parses the command line, does `work` and returns the exit code.

    Args:
      what: the experiment, for `--help`.
      work: trains what is missing and writes the page.
      rows: the names of all rows.
      out: default of `--out`.
      runs: default of `--runs`.
      steps: default of `--steps`; None for an experiment without.
    """
    rows, values = tuple(rows), flags.FlagValues()
    flags.DEFINE_string('runs', runs, 'Directory of the runs.', flag_values=values)
    flags.DEFINE_string('out', out, 'Page to write.', flag_values=values)
    flags.DEFINE_integer('seeds', 3, 'Seeds per row.', flag_values=values)
    flags.DEFINE_bool('train', True, 'Train what is missing.', flag_values=values)
    if steps is not None:
        flags.DEFINE_integer('steps', steps, 'Steps of each training.', lower_bound=1, flag_values=values)
    flags.DEFINE_list('rows', None, f'Rows to train, all by default: {", ".join(rows)}.', flag_values=values)

    def start() -> None:
        unknown = [name for name in values.rows or () if name not in rows]
        if unknown:
            raise ValueError(f'there is no row {unknown[0]!r}; choose from {list(rows)}.')
        folders = pathlib.Path(values.runs), pathlib.Path(values.out)
        given = None if steps is None else values.steps
        work(Options(*folders, values.seeds, values.train, tuple(values.rows or rows), given))

    return run_command(what, values, start, required=('runs', 'out'))


def train_run(run: pathlib.Path, config: str, seed: int, *changes: str) -> None:
    """Trains a run, if that has not been done; `changes` are further arguments, such as `--config.fusion.width=64`."""
    if not (run / 'summary.json').exists():
        call('mmtl_jax.train', f'--config={config}', f'--config.seed={seed}', f'--workdir={run}', *changes)


def train_rows(options: Options, train: Callable[[pathlib.Path, str, int], None]) -> None:
    """Calls `train(run, row, seed)` for every run of the chosen rows, all rows with the first seed first.

    Raises:
      ValueError: some failed; the others were trained all the same.
    """
    failures = []
    for seed in range(options.seeds if options.train else 0):
        for row in options.rows:
            try:
                train(options.runs / f'{row}-{seed}', row, seed)
            except ValueError as error:
                failures.append(str(error))
    if failures:
        raise ValueError(f'{len(failures)} runs failed, and the page is not written: {" ".join(failures)}')


def call(module: str, *arguments: str) -> None:
    """Runs `python -m module arguments`.

    Raises:
      ValueError: it fails.
    """
    if subprocess.run([sys.executable, '-m', module, *arguments]).returncode:
        raise ValueError(f'python -m {module} {" ".join(arguments)} failed; what it said stands above.')


def table(rows: Mapping[str, Sequence[Mapping[str, float]]], names: Iterable[str], digits: int = 3) -> str:
    """Returns a Markdown table of mean and standard deviation over the runs of each row.

    Args:
      rows: row -> the scores of its runs.
      names: scores, of which those that no run has are left out.
      digits: after the point.
    """
    names = [name for name in names if any(name in scores for runs in rows.values() for scores in runs)]
    lines = ['| run | seeds | ' + ' | '.join(names) + ' |', '|---' * (len(names) + 2) + '|']
    for row, runs in rows.items():
        cells = [cell([scores[name] for scores in runs if name in scores], digits) for name in names]
        if any(cells):
            lines.append(f'| {row} | {len(runs)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def least_table(rows: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]) -> str:
    """Returns a Markdown table of costs, the least over the runs of each row: other work on a machine only adds to it.

    Args:
      rows: row -> the costs of its runs.
      names: costs.
    """
    lines = ['| run | ' + ' | '.join(names) + ' |', '|---' * (len(names) + 1) + '|']
    lines += [
        f'| {row} | ' + ' | '.join(f'{min(costs[name] for costs in runs):,.0f}' for name in names) + ' |'
        for row, runs in rows.items()
        if runs
    ]
    return '\n'.join(lines)


def cell(values: Sequence[float], digits: int = 3) -> str:
    """Returns 'mean ± standard deviation', the mean alone of one value, '' of none."""
    if not values:
        return ''
    spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):z.{digits}f}{spread}'


def training_seconds(resources: Mapping[str, Any]) -> float:
    """Returns what remains of a run's time beside data, compilation, evaluation and checkpoints, from its record."""
    aside = sum(value for name, value in resources['seconds'].items() if name not in ('total', 'input_wait'))
    return resources['seconds']['total'] - aside


def training_costs(resources: Mapping[str, Any], num_steps: int) -> dict[str, float]:
    """Returns the `COSTS` of a run from its record; a step includes the wait for its input."""
    seconds = training_seconds(resources)
    return dict(zip(COSTS, (sum(resources['parameters'].values()), 1000 * seconds / num_steps, seconds), strict=True))


def exceeds(values: Sequence[float], others: Sequence[float], spread: Callable[[float, float], float]) -> bool:
    """Returns whether one mean is above another by more than `DEVIATIONS` of their joint spread; not of one run."""
    if min(len(values), len(others)) < 2:
        return False
    gain = np.mean(values) - np.mean(others)
    return bool(gain > DEVIATIONS * spread(np.std(values, ddof=1), np.std(others, ddof=1)))


def machines(runs: Iterable[pathlib.Path]) -> list[str]:
    """Returns a sentence for each machine that runs were made on."""
    found = [read_json(run / 'environment.json') for run in runs]
    names = {
        f'{each["processor"]}; {each["device_kind"]} x {len(each["devices"])}; jax {each["packages"]["jax"]}'
        for each in found
    }
    return [f'Machine: {name}.' for name in sorted(names)]
