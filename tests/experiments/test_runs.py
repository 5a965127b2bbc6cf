"""What experiments share."""

import dataclasses
import json
import pathlib
import sys

import pytest

from experiments import runs
from experiments.runs import (
    Options,
    cell,
    least_table,
    machines,
    run_experiment,
    table,
    train_rows,
    train_run,
)


def test_a_table_of_mean_and_deviation_over_the_seeds():
    rows = {'a': [{'x': 1.0, 'y': 0.5}, {'x': 3.0}], 'b': [{'x': 2.0}], 'c': [], 'd': [{'z': 1.0}]}
    assert table(rows, ('x', 'y', 'nowhere'), digits=1).splitlines() == [
        '| run | seeds | x | y |',
        '|---|---|---|---|',
        '| a | 2 | 2.0 ± 1.4 | 0.5 |',
        '| b | 1 | 2.0 |  |',
    ]
    assert cell([0.25]) == '0.250'
    assert cell([-0.0001]) == '0.000'


def test_a_table_of_the_least_cost():
    rows = {'a': [{'steps': 1000.4, 'ms': 7.0}, {'steps': 1200.0, 'ms': 6.0}], 'b': []}
    assert least_table(rows, ('steps', 'ms')).splitlines() == [
        '| run | steps | ms |',
        '|---|---|---|',
        '| a | 1,000 | 6 |',
    ]


def test_the_command_line_reaches_the_work(monkeypatch, capsys):
    given = []
    arguments = {'what': 'Some runs.', 'work': given.append, 'rows': ('a', 'b'), 'out': 'page.md'}
    monkeypatch.setattr(sys, 'argv', ['experiment', '--runs=here', '--seeds=2', '--notrain', '--rows=b'])
    assert run_experiment(**arguments) == 0
    expected = Options(pathlib.Path('here'), pathlib.Path('page.md'), 2, False, ('b',))
    assert given == [expected]
    assert run_experiment(**arguments, steps=600) == 0
    assert given.pop() == dataclasses.replace(expected, steps=600)
    monkeypatch.setattr(sys, 'argv', ['experiment', '--rows=c'])
    assert run_experiment(**arguments) == 1
    assert "there is no row 'c'; choose from ['a', 'b']" in capsys.readouterr().err
    assert len(given) == 1


def test_only_what_is_missing_is_trained(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, 'call', lambda *arguments: calls.append(arguments))
    (tmp_path / 'a-1').mkdir()
    (tmp_path / 'a-1' / 'summary.json').write_text('{}')
    for seed in (0, 1):
        train_run(tmp_path / f'a-{seed}', 'configs/some.py:a', seed)
    ((module, config, given, workdir),) = calls
    assert (module, config, given) == ('mmtl_jax.train', '--config=configs/some.py:a', '--config.seed=0')
    assert workdir == f'--workdir={tmp_path}/a-0'
    assert Options(tmp_path, tmp_path, 2, True, ()).of_row('a') == [tmp_path / 'a-1']


def test_a_run_that_fails_keeps_no_other_from_training():
    trained = []

    def train(run, row, seed):
        if row == 'bad' and seed == 0:
            raise ValueError('bad-0 diverged.')
        trained.append((run.name, row, seed))

    options = Options(pathlib.Path('runs'), pathlib.Path('page.md'), 2, True, ('bad', 'good'))
    with pytest.raises(ValueError, match=r'1 runs failed, and the page is not written: bad-0 diverged\.'):
        train_rows(options, train)
    assert trained == [('good-0', 'good', 0), ('bad-1', 'bad', 1), ('good-1', 'good', 1)]
    train_rows(dataclasses.replace(options, train=False), train)
    assert len(trained) == 3


def test_a_failed_command_is_one_sentence():
    with pytest.raises(ValueError, match=r'python -m mmtl_jax.nothing --flag=1 failed; what it said stands above'):
        runs.call('mmtl_jax.nothing', '--flag=1')


def test_machines_are_named_once(tmp_path):
    folders = [tmp_path / name for name in 'ab']
    for folder in folders:
        folder.mkdir()
        environment = {'processor': 'Abacus', 'device_kind': 'cpu', 'devices': [0], 'packages': {'jax': '1.0'}}
        (folder / 'environment.json').write_text(json.dumps(environment))
    assert machines(folders) == ['Machine: Abacus; cpu x 1; jax 1.0.']
