"""The command line: what goes in is checked, and what is wrong with it is one sentence before anything is written."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
import requests

from mmtl_jax import train
from mmtl_jax.data import load_source, preparation
from tests.verbs import ENVIRONMENT, TINY, call, edited, one_error, rows_of, snapshot, train_tiny

DATA = "config.data.sources = ({{'name': 'tests.configs.tiny.examples', 'builder_kwargs': {}}},)"


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out figures and report where a test is not about them."""
    monkeypatch.setattr(train, 'write_results', lambda *unused: None)


@pytest.mark.parametrize(
    ('edit', 'sentence'),
    [
        ('config.trainin = {}', "the config has no section 'trainin'; did you mean 'training'?"),
        ('del config.fusion', "the config lacks the section 'fusion'; it needs"),
        ('config.data.batchsize = 8', "section 'data' has no argument 'batchsize'; did you mean 'batch_size'?"),
        ('config.training.pacience = 8', "'training' has no argument 'pacience'; did you mean 'patience'?"),
        ("config.encoders.table.name = 'TabularMPL'", "'TabularMPL'; did you mean 'TabularMLP'?"),
        ('config.encoders.table.widht = 8', "TabularMLP has no argument 'widht'; did you mean 'width'?"),
        ("config.fusion.name = 'Concta'", "no fusion 'Concta'; did you mean 'Concat'?"),
        ("del config.encoders['text']", "the modality 'text', which nothing in encoders takes"),
        ("del config.data.inputs['text']", r"encoders.text has nothing to read: data.inputs has \['table'\]"),
        ("del config.data.targets['size']", r"tasks.size has nothing to read: data.targets has \['kind'\]"),
        ('config.tasks = {}', "the config section 'tasks' is empty"),
        ("config.tasks.size.reads = 'tabel'", "the task 'size' reads 'tabel', but there is only"),
        (DATA.format("{'unlabelled': 'size'}"), "target 'size' is missing in every example of 'tests.configs.tiny"),
        ('config.data.targets.kind.num_classes = 2', 'tasks.kind.num_classes is 3, but .* is 2; give both the same'),
        (
            "config.tasks.kind.num_classes = 2; del config.data.targets.kind['num_classes']",
            r"example 'train-\d+': target 'kind' \(key 'kind'\) is 2, expected 0 to 1",
        ),
        (DATA.format("{'nan_rows': (3,)}"), "example 'train-3': input 'table' .* holds NaN.* bad_examples='skip'"),
        (DATA.format("{'empty': 'validation'}"), "the split 'validation' of .* has no examples"),
        (DATA.format("{'empty': 'test'}"), "the split 'test' of .* has no examples"),
        ("config.data.sources = ({'name': 'no_such_set'},)", "no data set 'no_such_set': expected one of"),
        ("config.data.sources = ({'name': 'tests.no.source'},)", "cannot import the source 'tests.no.source'"),
        ("config.results.splits = ('tset',)", r"no split 'tset'; choose one of \['test', 'train', 'validation'\]"),
        ("config.training.best_metric = 'knid/accuracy'", "best_metric is 'knid/accuracy'.*of .*'kind', 'size'"),
        ("config.optimizer.name = 'adamm'", "no optimizer 'adamm'"),
        ('config.training.num_steps = 0', 'training.num_steps is 0; it must be at least 1'),
        ('config.training.patience = 0', 'training.patience is 0; it must be at least 1'),
        ('config.training.num_devices = 3', 'batch_size 8 does not divide by 3 devices'),
        ('config.tasks.kind.hidden.size = 1', "edited.py cannot be read: AttributeError: .*'hidden'"),
        ("raise ValueError('no such thing')", 'no such thing'),
        ('nothing', "NameError: name 'nothing' is not defined"),
    ],
)  # fmt: skip
def test_a_bad_config(edit, sentence, tmp_path, capsys):
    workdir = tmp_path / 'run'
    assert train_tiny(workdir, config=edited(tmp_path, edit)) == 1
    found = one_error(capsys)
    assert re.search(sentence, found), found
    assert not workdir.exists()


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ((f'--config={TINY}',), '--workdir is missing; the command needs --config=... and --workdir=...'),
        (('--workdir={run}',), '--config is missing; the command needs'),
        (('--config=configs/nope.py', '--workdir={run}'), "there is no config file 'configs/nope.py'"),
        (('--config', 'configs/nope.py', '--config.seed=1', '--workdir={run}'), "no config file 'configs/nope.py'"),
        (('--config=configs/synthetic.py:smoek', '--workdir={run}'), "configs/synthetic.py takes no argument 'smoek'"),
        (
            (f'--config={TINY}', '--workdir={run}', '--config.training.num_stepz=3'),
            "no key 'num_stepz', which --config.training.num_stepz names; did you mean 'num_steps'?",
        ),
        (
            (f'--config={TINY}', '--workdir={run}', '--config.training.zzz=3'),
            "no key 'zzz', which --config.training.zzz names; only keys that stand in the config file",
        ),
        (
            (f'--config={TINY}', '--workdir={run}', '--config.training.num_steps.x=3'),
            "no key 'x', which --config.training.num_steps.x names",
        ),
        ((f'--config={TINY}', '--workdir={run}', '--config.training.num_steps=abc'), 'num_steps=abc: invalid literal'),
        ((f'--config={TINY}', '--wokdir={run}'), "Unknown command line flag 'wokdir'. Did you mean: workdir"),
        ((f'--config={TINY}', '--workdir={run}', 'more'), "unexpected argument 'more'"),
    ],
)  # fmt: skip
def test_a_bad_command_line(arguments, sentence, tmp_path, capsys):
    assert call('train', *(argument.format(run=tmp_path / 'run') for argument in arguments)) == 1
    assert sentence in one_error(capsys)
    assert not (tmp_path / 'run').exists()


def test_help_names_every_flag(capsys):
    assert call('predict', '--help') == 0
    said = capsys.readouterr().out
    assert all(f'--{name}' in said for name in ('workdir', 'split', 'out'))


def test_debug_shows_where_an_error_comes_from(tmp_path, capsys):
    arguments = (f'--config={edited(tmp_path, "config.tasks = {}")}', f'--workdir={tmp_path / "run"}', '--debug')
    assert call('train', *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith('Traceback')
    assert said.splitlines()[-1].startswith("error: the config section 'tasks' is empty")


def test_a_defect_is_not_mistaken_for_bad_input(tmp_path, monkeypatch):
    def defect(config):
        raise TypeError('a defect')

    monkeypatch.setattr(train, 'from_config', defect)
    with pytest.raises(TypeError, match='a defect'):
        train_tiny(tmp_path / 'run')


def test_truly_from_a_shell(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'mmtl_jax.evaluate', f'--workdir={tmp_path}'],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, '')
    assert (
        done.stderr == f'error: --workdir={tmp_path} holds no run (no config.json); give the --workdir of a training.\n'
    )


# --- bad data ---


def test_bad_examples_can_be_skipped_and_are_counted(tmp_path, capsys):
    config = edited(tmp_path, DATA.format("{'nan_rows': (3, 7)}") + "; config.data.bad_examples = 'skip'")
    # Five batches of eight go once through the 40 examples.
    assert train_tiny(tmp_path / 'run', '--config.training.num_steps=5', config=config) == 0
    assert "bad examples that are skipped: 2, the first: 'tests.configs.tiny.examples', example 'train-3'" in (
        capsys.readouterr().err
    )
    *_, last = (row for row in rows_of(tmp_path / 'run') if row['split'] == 'train')
    assert last['bad_examples'] == 2
    kept = json.loads((tmp_path / 'run' / 'resources.json').read_text())['bad_examples']
    assert (kept['skipped'], len(kept['why'])) == (2, 2)
    report = (tmp_path / 'run' / 'report.html').read_text()
    assert 'Bad examples (2)' in report
    assert all(f'train-{index}&#x27;: input &#x27;table&#x27;' in report for index in (3, 7))


def generated(folder: pathlib.Path, num_validation: int) -> str:
    """Prepares a small generated data set below `folder`; returns a config that reads it."""
    sizes = {'num_train': 16, 'num_validation': num_validation, 'num_test': 8}
    source = {'name': 'synthetic', 'data_dir': str(folder / 'data'), 'builder_kwargs': sizes}
    load_source(split='train', **source)
    return edited(folder, f'config.data.sources = ({source},)', base='configs.synthetic')


def test_a_damaged_data_file(tmp_path, capsys):
    config = generated(tmp_path, 8)
    (file,) = (tmp_path / 'data').rglob('*-train.array_record*')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    capsys.readouterr()
    assert train_tiny(tmp_path / 'run', config=config) == 1
    sentence = one_error(capsys)
    assert sentence.startswith(f"the files of the data set 'synthetic' in {tmp_path / 'data'} cannot be read (")
    assert sentence.endswith('remove its folder there, and it will be prepared again.')
    assert not (tmp_path / 'run').exists()


def test_a_generated_data_set_without_validation(tmp_path, capsys):
    config = generated(tmp_path, 0)
    capsys.readouterr()
    assert train_tiny(tmp_path / 'run', config=config) == 1
    assert "'synthetic' has no split 'validation'; it has ['test', 'train']" in one_error(capsys)


def test_no_network(tmp_path, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise requests.ConnectionError('storage.example cannot be reached')

    monkeypatch.setattr(requests.Session, 'request', unreachable)
    # As where TensorFlow is installed, which this data set needs to be prepared.
    monkeypatch.setattr(preparation, 'missing_packages', lambda builder: [])
    config = edited(tmp_path, f"config.data.sources = ({{'name': 'mnist', 'data_dir': '{tmp_path / 'data'}'}},)")
    assert train_tiny(tmp_path / 'run', config=config) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("error: 'mnist' cannot be downloaded or written to ")
    assert 'cannot be reached' in sentence
    assert not (tmp_path / 'run').exists()


# --- workdirs ---


def test_a_workdir_that_is_a_file_or_holds_something_else(tmp_path, capsys):
    (tmp_path / 'file').write_text('mine')
    assert train_tiny(tmp_path / 'file') == 1
    assert one_error(capsys).endswith('file is a file; give a directory.')
    assert train_tiny(tmp_path) == 1
    assert 'is not empty and holds no run (no config.json); choose an empty --workdir' in one_error(capsys)
    assert snapshot(tmp_path) == {'file': b'mine'}


def test_a_wrong_metric_stops_before_the_first_step_and_the_workdir_is_free(tmp_path, capsys, no_report):
    workdir = tmp_path / 'run'
    config = edited(tmp_path, "config.training.best_metric = 'kind/acuracy'")
    assert train_tiny(workdir, config=config) == 1
    assert "training.best_metric is 'kind/acuracy', but an evaluation gives ['kind/accuracy', " in one_error(capsys)
    assert not (workdir / 'metrics.jsonl').exists()
    assert train_tiny(workdir, '--config.training.best_metric=size/mae', '--config.training.num_steps=1') == 0
