"""Evaluation by the command line: without some modalities, and with inputs that get worse."""

import itertools
import json
import pathlib
import re
import shutil

import pytest

from mmtl_jax import train
from tests.verbs import call, one_error, snapshot, train_tiny


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> pathlib.Path:
    """A run of a few steps, without report; tests that change it copy it first."""
    workdir = tmp_path_factory.mktemp('evaluated') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, 'write_results', lambda *unused: None)
        assert train_tiny(workdir, '--config.training.num_steps=8') == 0
    return workdir


@pytest.fixture
def copy(trained, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(trained, tmp_path / 'copy'))


def columns(text: str, start: str) -> dict[str, list[str]]:
    """Returns first cell -> other cells of the printed table whose head begins with `start`."""
    lines = text[text.index(f'{start} ') :].splitlines()
    table = [re.split(r'\s{2,}', line) for line in itertools.takewhile(bool, lines)]
    return {cells[0]: cells[1:] for cells in table}


# --- subsets of the modalities ---


def test_all_subsets_and_what_each_modality_is_worth(copy, capsys):
    capsys.readouterr()
    assert call('evaluate', f'--workdir={copy}', '--modalities=all-subsets') == 0
    said = capsys.readouterr().out
    table, worth = columns(said, 'modalities'), columns(said, 'Shapley value')
    assert list(table) == ['modalities', 'table + text', 'text', 'table', 'none']
    assert table['modalities'] == ['rows', 'blank', 'kind/accuracy', 'size/mae']
    # The number is read from the table alone, so there is none without it.
    assert [row[3] == '-' for row in table.values()] == [False, False, True, False, True]
    kept = json.loads((copy / 'subsets-validation.json').read_text())
    assert [kept['subsets'][name]['blank'] for name in ('table_text', 'table', 'none')] == [0, 0, 13]
    assert 0 < kept['subsets']['text']['blank'] < 13
    assert not any(name.startswith('size/') for name in kept['subsets']['text']['values'])
    for name, entry in kept['subsets'].items():
        assert table[name.replace('_', ' + ')][2] == f'{entry["values"]["kind/accuracy"]:.4f}'
    assert call('evaluate', f'--workdir={copy}') == 0
    whole = json.loads((copy / 'summary.json').read_text())['validation']
    assert kept['subsets']['table_text']['values'] == whole
    gain = whole['kind/accuracy'] - kept['subsets']['none']['values']['kind/accuracy']
    assert sum(kept['shapley']['kind'].values()) == pytest.approx(gain)
    # Lower is better for the number: what the table adds counts as above 0, and what the text adds is nothing.
    assert kept['shapley']['size']['text'] == 0.0
    assert worth['table'][1] == f'{kept["shapley"]["size"]["table"]:+.4f}'
    assert {'subsets_validation.png', 'shapley_validation.png'} <= {path.name for path in (copy / 'figures').iterdir()}


def test_one_subset_joins_what_is_known_of_the_others(copy, capsys):
    for names in ('table', 'text_table'):
        assert call('evaluate', f'--workdir={copy}', f'--modalities={names}', '--split=test') == 0
    assert 'kind/accuracy 0.' in capsys.readouterr().out
    kept = json.loads((copy / 'subsets-test.json').read_text())
    assert list(kept['subsets']) == ['table', 'table_text']
    assert 'shapley' not in kept
    assert not (copy / 'summary.json').exists(), 'what a subset reaches is not what the run reaches'
    kept['step'] = -1
    (copy / 'subsets-test.json').write_text(json.dumps(kept))
    assert call('evaluate', f'--workdir={copy}', '--modalities=text', '--split=test') == 0
    assert list(json.loads((copy / 'subsets-test.json').read_text())['subsets']) == ['text']


@pytest.mark.parametrize('names', ['image', 'table_table', 'table_', 'table,text', ''])
def test_no_such_modality(names, trained, capsys):
    before = snapshot(trained)
    capsys.readouterr()
    assert call('evaluate', f'--workdir={trained}', f'--modalities={names}') == 1
    sentence = one_error(capsys)
    assert f"--modalities={names} names no subset of the run's modalities ['table', 'text']; join some" in sentence
    assert snapshot(trained) == before
