"""The table of MultiMNIST, from runs made up."""

import json

import pytest

from configs import multi_mnist as config
from experiments import multi_mnist
from experiments.runs import Options
from mmtl_jax import balancing

# Row -> accuracies of its tasks on test, one pair a seed.
FAKES = {
    'left_only': [{'left': 0.90}, {'left': 0.94}],
    'right_only': [{'right': 0.80}, {'right': 0.80}],
    'equal': [{'left': 0.92, 'right': 0.80}, {'left': 0.92, 'right': 0.80}],
    'cagrad': [{'left': 0.966, 'right': 0.76}],
}


def write_run(folder, accuracies):
    """Writes what a finished run leaves: a quarter of conflicts where there are two tasks."""
    folder.mkdir(parents=True)
    test = {f'{task}/accuracy': value for task, value in accuracies.items()}
    (folder / 'summary.json').write_text(json.dumps({'test': {**test, 'left/loss': 1.0}}))
    rows = [{'step': 10 * n, 'split': 'train', 'seconds': 5.0 * n} for n in range(1, 5)]
    if len(accuracies) > 1:
        rows[0]['gradients/conflicts'], rows[2]['gradients/conflicts'] = 0.5, 0.0
    rows.append({'step': 20, 'split': 'validation', 'seconds': 19.0})
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    environment = {'processor': 'Abacus', 'device_kind': 'cpu', 'devices': [0], 'packages': {'jax': '1.0'}}
    (folder / 'environment.json').write_text(json.dumps(environment))


@pytest.fixture
def lines(tmp_path):
    """The page's lines."""
    for row, seeds in FAKES.items():
        for seed, accuracies in enumerate(seeds):
            write_run(tmp_path / 'runs' / f'{row}-{seed}', accuracies)
    multi_mnist.work(Options(tmp_path / 'runs', tmp_path / 'page.md', 3, False, multi_mnist.ROWS))
    return (tmp_path / 'page.md').read_text().splitlines()


def test_the_table_of_finished_runs(lines):
    assert 'Machine: Abacus; cpu x 1; jax 1.0.' in lines
    rows = [[part.strip() for part in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
    assert rows[0] == [
        'run',
        'seeds',
        'left accuracy, %',
        'right accuracy, %',
        'Δm, % ↓',
        'Δp, % ↑',
        'conflicts, %',
    ]
    assert rows[2:] == [
        ['single tasks', '2', '92.00 ± 2.83', '80.00 ± 0.00', '0.00 ± 1.54', '0.00 ± 1.54', ''],
        ['equal', '2', '92.00 ± 0.00', '80.00 ± 0.00', '0.00 ± 0.00', '0.00 ± 0.00', '25.00 ± 0.00'],
        ['cagrad', '1', '96.60', '76.00', '0.00', '0.00', '25.00'],
    ]


def test_without_single_tasks_there_is_no_delta():
    equal = [{'left/accuracy': 0.9, 'right/accuracy': 0.8}]
    page = multi_mnist.page({'equal': equal}, [])
    assert '| run | seeds | left accuracy, % | right accuracy, % |' in page
    assert '| equal | 1 | 90.00 | 80.00 |' in page


def test_every_method_exists():
    assert {config.get_config(row).balancing.name for row in multi_mnist.METHODS} <= set(balancing.__all__)
