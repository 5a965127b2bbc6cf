"""The results on MultiMNIST: balancing methods beside single-task runs of the same network and budget.

    python -m experiments.multi_mnist --runs=runs/multi_mnist --out=docs/results/multi_mnist.md

trains what is missing in `--runs` (each run is the config's command with a method and a seed) and writes the table;
`--train=false` only reads the runs that are there.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.runs import Options, machines, run_experiment, table, train_rows, train_run
from mmtl_jax.core.files import read_json
from mmtl_jax.metrics import delta_m
from mmtl_jax.training.writer import read_metrics

METHODS = (
    'equal', 'uncertainty', 'dwa', 'famo', 'famo_next', 'mgda', 'mgda_features', 'pcgrad', 'gradvac', 'cagrad',
    'imtl_g', 'nash_mtl', 'aligned_mtl', 'upgrad',
)  # fmt: skip
# Task -> the row that trains it alone.
SINGLE_TASKS = {'left': 'left_only', 'right': 'right_only'}
ROWS = (*SINGLE_TASKS.values(), *METHODS)
SINGLE = 'single tasks'
HIGHER_IS_BETTER = {f'{task}/accuracy': True for task in SINGLE_TASKS}
# Convention of `delta_m` -> name of the score.
DELTAS = {'nash_mtl': 'Δm, % ↓', 'libmtl': 'Δp, % ↑'}
CONFLICTS = 'conflicts, %'
ACCURACIES = {f'{task}/accuracy': f'{task} accuracy, %' for task in SINGLE_TASKS}


def values_of(run: pathlib.Path) -> dict[str, float]:
    """Returns a run's test accuracies and, where it was measured, its share of conflicts, in the whole training."""
    test = read_json(run / 'summary.json')['test']
    rows = [row for row in read_metrics(run / 'metrics.jsonl') if row['split'] == 'train']
    values = {key: test[key] for key in ACCURACIES if key in test}
    conflicts = [row['gradients/conflicts'] for row in rows if 'gradients/conflicts' in row]
    return {**values, CONFLICTS: 100 * float(np.mean(conflicts))} if conflicts else values


def single_tasks(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Returns the values of the single-task runs as those of one model per task, seed by seed."""
    runs = zip(*(found.get(row, ()) for row in SINGLE_TASKS.values()), strict=False)
    return [{key: value for run in seed for key, value in run.items()} for seed in runs]


def scores(runs: Sequence[Mapping[str, float]], baselines: Mapping[str, float]) -> list[dict[str, float]]:
    """Returns what the table shows of the runs of a row; no deltas without baselines."""
    return [
        {
            **{name: 100 * run[key] for key, name in ACCURACIES.items()},
            **{
                name: delta_m(run, baselines, HIGHER_IS_BETTER, convention=convention)
                for convention, name in DELTAS.items()
                if baselines
            },
            **({CONFLICTS: run[CONFLICTS]} if CONFLICTS in run else {}),
        }
        for run in runs
    ]


def page(found: Mapping[str, Sequence[Mapping[str, float]]], facts: Sequence[str]) -> str:
    """Returns the results page of the `values_of` the runs of each row."""
    alone = single_tasks(found)
    baselines = {key: float(np.mean([run[key] for run in alone])) for key in ACCURACIES} if alone else {}
    rows = {SINGLE: scores(alone, baselines)}
    rows |= {method: scores(found[method], baselines) for method in METHODS if found.get(method)}
    return '\n\n'.join([
        '# Results on MultiMNIST',
        'Made by `python -m experiments.multi_mnist --runs=runs/multi_mnist --out=docs/results/multi_mnist.md`: 4,000 '
        'test pairs of 1,000 digit images that occur in no training pair, mean ± standard deviation over the seeds, '
        'best checkpoint by validation. Each run is the command `python -m mmtl_jax.train '
        '--config=configs/multi_mnist.py:<row> --config.seed=<seed>`: the same network, steps, batch size and '
        'optimizer, chosen on validation with equal weights. The data and their split are the same for all seeds. '
        'The methods have the settings that the config gives them, mostly their defaults; none was tuned.',
        *facts,
        table(rows, [*ACCURACIES.values(), *DELTAS.values(), CONFLICTS], digits=2),
        'Single tasks: a network of the same size for each task. Δm as in Nash-MTL (the mean drop '
        'against single tasks, lower is better), Δp as in LibMTL (the mean gain, higher is better); with one metric a '
        'task they differ in the sign alone. The baselines are the means of the single-task runs over the seeds, so '
        'that the spread in the first row is what chance alone makes. Conflicts: the share of the measured steps in '
        'which the gradients of the tasks have a negative cosine; of a method that needs the losses alone, every '
        'hundredth step is measured.',
    ]) + '\n'  # fmt: skip


def work(options: Options) -> None:
    """Trains what is missing and writes the page."""
    train_rows(options, lambda run, row, seed: train_run(run, f'configs/multi_mnist.py:{row}', seed))
    runs = {row: options.of_row(row) for row in ROWS}
    found = {row: [values_of(run) for run in finished] for row, finished in runs.items()}
    options.out.write_text(page(found, machines(run for finished in runs.values() for run in finished)))


if __name__ == '__main__':
    sys.exit(run_experiment(__doc__, work, rows=ROWS, runs='runs/multi_mnist', out='docs/results/multi_mnist.md'))
