"""Evaluation by the command line: without some modalities, and with inputs that get worse."""

import itertools
import json
import pathlib
import re
import shutil

import pytest

from mmtl_jax import train
from mmtl_jax.reporting import write_report
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
    report = copy / 'report.html'
    write_report(report, primaries={}, config={'seed': 0}, environment={}, history=[], summary={})
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
    assert re.findall(r'href="#(\w+)"', report.read_text())[:3] == ['results', 'subsets', 'setup']
    assert f'<div class="value">{whole["kind/accuracy"]:.3f}</div>' in report.read_text()
    gain = whole['kind/accuracy'] - kept['subsets']['none']['values']['kind/accuracy']
    assert sum(kept['shapley']['kind'].values()) == pytest.approx(gain)
    # Lower is better for the number: what the table adds counts as above 0, and what the text adds is nothing.
    assert kept['shapley']['size']['text'] == 0.0
    assert worth['table'][1] == f'{kept["shapley"]["size"]["table"]:+.4f}'
    assert {'subsets_validation.png', 'shapley_validation.png'} <= {path.name for path in (copy / 'figures').iterdir()}


def test_one_subset_joins_what_is_known_of_the_others(copy, capsys):
    for names in ('table', 'text_table', 'text'):
        assert call('evaluate', f'--workdir={copy}', f'--modalities={names}', '--split=test') == 0
        said = capsys.readouterr().out
        assert 'kind/accuracy 0.' in said
        assert ('size/' in said) == ('table' in names), 'without the table there is no number'
    kept = json.loads((copy / 'subsets-test.json').read_text())
    assert list(kept['subsets']) == ['table', 'table_text', 'text']
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


# --- inputs that get worse ---


def test_curves_of_corruptions_and_robustness_beside_a_baseline(copy, tmp_path, capsys):
    levels = '--levels=1,0.5'
    baseline = shutil.copytree(copy, tmp_path / 'baseline')
    assert call('evaluate', f'--workdir={baseline}', '--corruptions=table:noise,table:dropout', levels) == 0
    capsys.readouterr()
    command = (f'--workdir={copy}', '--corruptions=table:noise', levels, f'--baseline={baseline}')
    assert call('evaluate', *command) == 0
    table = columns(capsys.readouterr().out, 'corruption and metric')
    assert table['corruption and metric'] == ['0', '0.5', '1', 'relative', 'effective']
    assert list(table)[1:] == ['table:noise kind/accuracy', 'table:noise size/mae']
    kept = json.loads((copy / 'robustness-validation.json').read_text())['corruptions']['table:noise']
    assert (kept['levels'], kept['transform']) == ([0.0, 0.5, 1.0], 'table_noise')
    curve = kept['values']['size/mae']
    assert call('evaluate', f'--workdir={copy}') == 0
    assert curve[0] == json.loads((copy / 'summary.json').read_text())['validation']['size/mae']
    assert len(set(curve)) == 3, 'every level changes the numbers'
    found = kept['robustness']['size/mae']
    assert found['relative'] == pytest.approx((curve[0] + 2 * curve[1] + curve[2]) / 4)
    # The run is its own baseline here, so that it loses as much as that.
    assert found['effective'] == pytest.approx(0.0, abs=1e-12)
    assert (copy / 'figures' / 'robustness_validation.png').exists()
    assert call('evaluate', f'--workdir={copy}', '--corruptions=table:dropout', '--levels=1') == 0
    together = json.loads((copy / 'robustness-validation.json').read_text())['corruptions']
    assert list(together) == ['table:noise', 'table:dropout']
    assert together['table:noise'] == kept
    # A table without a cell is a missing table.
    assert call('evaluate', f'--workdir={copy}', '--modalities=text') == 0
    without = json.loads((copy / 'subsets-validation.json').read_text())['subsets']['text']['values']
    assert together['table:dropout']['values']['kind/accuracy'][1] == without['kind/accuracy']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--corruptions=noise'], r'expected <modality>:<corruption>, .*; got .noise.'),
        (['--corruptions=table:noise,'], r"got ''"),
        (['--corruptions=image:noise'], r"the run has no modality 'image'; it has \['table', 'text'\]"),
        (['--corruptions=table:nois'], "no corruption 'nois'; did you mean 'noise'"),
        (['--corruptions=table:blur'], "'table' cannot be corrupted: image_blur needs a picture .* array of float32"),
        (['--corruptions=text:typos'], "text_typos needs a text, but 'text' is an array of int"),
        (['--corruptions=table:noise', '--levels=0,1.5'], r"expected numbers from 0 .* to 1 .*, got '1.5'"),
        (['--corruptions=table:noise', '--levels=much'], "got 'much'"),
        (['--corruptions=table:noise', '--levels=nan'], "got 'nan'"),
        (['--corruptions=table:noise', '--levels=0'], 'at least one level above 0'),
        (['--corruptions=table:noise', '--split=tset'], "no split 'tset'"),
        (['--corruptions=table:noise', '--baseline={run}'], r'--baseline=.* has no curve of table:noise at the levels'),
        (['--baseline={run}'], '--baseline goes with --corruptions'),
        (['--corruptions=table:noise', '--modalities=text'], 'two evaluations; give one of them a time'),
    ],
)
def test_bad_corruptions(arguments, sentence, trained, capsys):
    before = snapshot(trained)
    capsys.readouterr()
    assert call('evaluate', f'--workdir={trained}', *(argument.format(run=trained) for argument in arguments)) == 1
    found = one_error(capsys)
    assert re.search(sentence, found), found
    assert snapshot(trained) == before
