"""The configs: each runs from end to end, and the argument of each says what it takes."""

import importlib
import json
import pathlib

import pytest

from configs import multi_mnist, stamps, stamps_pretrained, synthetic
from mmtl_jax.data.builders import stamps_package
from mmtl_jax.experiment import SECTIONS, plain_config
from mmtl_jax.pretrained.frozen_features import with_frozen_features
from tests.configs import small_stamps_pretrained
from tests.data.builders import miniature_stamps
from tests.verbs import call, edited, one_error, rows_of, train_tiny

# Some files only hold what several configs have in common.
CONFIGS = [path.stem for path in pathlib.Path('configs').glob('*.py') if 'def get_config(' in path.read_text('utf8')]


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_is_locked_plain_values_in_the_known_sections(name):
    config = importlib.import_module(f'configs.{name}').get_config()
    assert config.is_locked
    assert set(plain_config(config)) == set(SECTIONS)
    json.dumps(config.to_dict())


# --- the generated data ---


# Speech takes most of the compilation.
WITHOUT_SPEECH = """del config.encoders['speech'], config.data.inputs['speech']
    del config.tasks['transcript'], config.data.targets['transcript']
    config.data.buckets = None
    config.tasks.retrieval.modalities = ('image', 'caption')"""


@pytest.mark.parametrize(
    'edit', [WITHOUT_SPEECH, pytest.param('', marks=pytest.mark.slow)], ids=['without speech', 'whole']
)
def test_the_smoke_run_of_the_generated_data(edit, tmp_path):
    workdir = tmp_path / 'run'
    data_dir = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, f'{data_dir}\n    {edit}', base='configs.synthetic', argument='smoke')
    assert train_tiny(workdir, config=config) == 0
    assert [(row['step'], row['split']) for row in rows_of(workdir)] == [
        (1, 'train'), (2, 'train'), (2, 'validation')
    ]  # fmt: skip
    tasks = set(synthetic.get_config().tasks) - ({'transcript'} if edit else set())
    summary = json.loads((workdir / 'summary.json').read_text())
    for split in ('validation', 'test'):
        assert {name.split('/')[0] for name in summary[split]} == tasks, 'every kind of task has values'
    report = (workdir / 'report.html').read_text()
    assert all(task in report for task in tasks)
    assert call('predict', f'--workdir={workdir}', f'--out={tmp_path}/answers.jsonl') == 0
    lines = (tmp_path / 'answers.jsonl').read_text().splitlines()
    assert len(lines) == 24
    assert tasks <= set(json.loads(lines[0]))


def test_an_argument_that_the_generated_data_lacks():
    with pytest.raises(ValueError, match=r"takes no argument 'big'; it takes one of \['', 'smoke'\]"):
        synthetic.get_config('big')


# --- the stamps ---

ALL = ('category', 'transcript', 'language', 'attributes', 'retrieval')


@pytest.mark.parametrize(
    ('argument', 'modalities', 'tasks'),
    [
        ('', ('image', 'caption', 'speech'), ALL),
        ('image_speech', ('image', 'speech'), ALL),
        ('image_caption', ('image', 'caption'), ('category', 'attributes', 'retrieval')),
        ('caption', ('caption',), ('category', 'attributes')),
        ('speech', ('speech',), ('category', 'transcript', 'language', 'attributes')),
        ('speech/transcript', ('speech',), ('transcript',)),
        ('image_caption_speech/category_language', ('image', 'caption', 'speech'), ('category', 'language')),
        ('/category', ('image', 'caption', 'speech'), ('category',)),
    ],
)
def test_the_argument_of_the_stamps_names_modalities_and_tasks(argument, modalities, tasks):
    config = stamps.get_config(argument)
    assert set(config.encoders) == set(config.data.inputs) == set(modalities)
    assert set(config.tasks) == set(config.data.targets) == set(config.balancing.weights) == set(tasks)
    if 'retrieval' in tasks:
        assert config.tasks.retrieval.modalities == modalities


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('imgae', r"no modality 'imgae'; choose from \['image', 'caption', 'speech'\]"),
        ('speech/categroy', r"no task 'categroy' with speech; choose from \['category', 'transcript', "),
        ('image_caption/transcript', r"no task 'transcript' with image_caption; choose from \['category', 'attr"),
        ('speech/retrieval', r"no task 'retrieval' with speech"),
    ],
)
def test_an_argument_that_the_stamps_lack(argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        stamps.get_config(argument)


def test_a_wrong_argument_on_the_command_line(tmp_path, capsys):
    assert train_tiny(tmp_path / 'run', config='configs/stamps.py:imgae') == 1
    assert one_error(capsys) == (
        "configs/stamps.py: no modality 'imgae'; choose from ['image', 'caption', 'speech']."
    )  # fmt: skip
    assert not (tmp_path / 'run').exists()


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """A miniature of the stamps' package in the place of an installed one."""
    root = miniature_stamps.write(tmp_path / 'package')
    monkeypatch.setattr(stamps_package, 'INSTALLED', root)
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(root))


@pytest.mark.usefixtures('miniature')
@pytest.mark.parametrize(
    ('argument', 'tasks'),
    [
        ('image_caption', ('category', 'attributes', 'retrieval')),
        pytest.param('', ALL, marks=pytest.mark.slow),
    ],
)
def test_the_stamps_train_from_end_to_end_on_a_miniature_of_their_package(argument, tasks, tmp_path):
    workdir = tmp_path / 'run'
    edit = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, edit, base='tests.configs.small_stamps', argument=argument)
    assert train_tiny(workdir, config=config) == 0
    summary = json.loads((workdir / 'summary.json').read_text())
    assert summary['step'] == 2
    for split in ('validation', 'test'):
        assert {name.split('/')[0] for name in summary[split]} == set(tasks)
        assert {'category/accuracy', 'category/macro_f1'} <= set(summary[split])
        assert ('transcript/cer' in summary[split]) == ('transcript' in tasks)
    report = (workdir / 'report.html').read_text()
    assert 'data:image/' in report
    assert '<audio' in report, 'the recording is shown, also where the model does not hear it'


# --- the stamps from published towers ---


@pytest.mark.parametrize(
    ('argument', 'modalities', 'variant'),
    [
        ('', ('image', 'caption'), 'frozen'),
        ('image', ('image',), 'frozen'),
        ('image_caption_speech', ('image', 'caption', 'speech'), 'frozen'),
        ('image_caption/lora', ('image', 'caption'), 'lora'),
        ('caption/fine_tuned', ('caption',), 'fine_tuned'),
    ],
)
def test_the_argument_of_the_pretrained_stamps_names_modalities_and_variant(argument, modalities, variant):
    config = stamps_pretrained.get_config(argument)
    assert set(config.encoders) == set(config.data.inputs) == set(modalities)
    whole = variant != 'frozen'
    assert set(config.data.frozen_features) == {
        f'{name}_features' for name in modalities if not (whole and name == 'caption')
    }
    assert ('lora' in config.encoders.get('caption', {})) == (variant == 'lora')


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('image/lora', 'lora trains the tower of the caption; name the caption'),
        ('/adapted', r"no variant 'adapted'; choose from \['frozen', 'fine_tuned', 'lora'\]"),
        ('images', "no modality 'images'"),
    ],
)
def test_an_argument_that_the_pretrained_stamps_lack(argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        stamps_pretrained.get_config(argument)


@pytest.mark.slow
@pytest.mark.usefixtures('miniature')
@pytest.mark.parametrize('argument', ['image_caption_speech', 'image_caption/fine_tuned', 'image_caption/lora'])
def test_the_pretrained_stamps_train_from_end_to_end(argument, tmp_path, monkeypatch):
    monkeypatch.setitem(with_frozen_features.__kwdefaults__, 'folder', tmp_path / 'tables')
    towers, workdir = small_stamps_pretrained.write(tmp_path / 'towers'), tmp_path / 'run'
    edit = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, edit, base='tests.configs.small_stamps_pretrained', argument=f'{towers}|{argument}')
    assert train_tiny(workdir, config=config) == 0
    summary = json.loads((workdir / 'summary.json').read_text())
    for split in ('validation', 'test'):
        assert {name.split('/')[0] for name in summary[split]} == {'category', 'attributes', 'retrieval'}
    used = json.loads((workdir / 'resources.json').read_text())
    assert used['seconds']['total'] > used['seconds']['compile'] > 0
    frozen = used['parameters'] != used['trained_parameters']
    assert frozen == ('lora' in argument)


# --- MultiMNIST ---


@pytest.mark.parametrize(
    ('argument', 'tasks', 'method'),
    [
        ('', ('left', 'right'), 'equal'),
        ('cagrad', ('left', 'right'), 'cagrad'),
        ('mgda_features', ('left', 'right'), 'mgda'),
        ('famo_next', ('left', 'right'), 'famo'),
        ('left_only', ('left',), 'equal'),
        ('right_only', ('right',), 'equal'),
    ],
)
def test_the_argument_of_multi_mnist_names_a_method_or_a_task(argument, tasks, method):
    config = multi_mnist.get_config(argument)
    assert tuple(config.tasks) == tuple(config.data.targets) == tasks
    assert config.balancing.name == method


SMALL_MULTI_MNIST = """config.data.sources[0]['builder_kwargs'] = dict(num_train=40, num_validation=20, num_test=10)
    config.data.batch_size = config.data.eval_batch_size = 8
    config.encoders.image.update({'width': 8, 'stage_widths': (8, 8)})
    config.fusion.width = config.sharing.width = 8
    config.training.update({'num_steps': 2, 'log_every': 1, 'eval_every': 2})
    config.results.num_samples = 2"""


@pytest.mark.slow
def test_multi_mnist_trains_from_end_to_end(tmp_path):
    workdir = tmp_path / 'run'
    data_dir = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, f'{data_dir}\n    {SMALL_MULTI_MNIST}', base='configs.multi_mnist', argument='dwa')
    assert train_tiny(workdir, config=config) == 0
    assert [(row['step'], row['split']) for row in rows_of(workdir)] == [
        (1, 'train'), (2, 'train'), (2, 'validation')
    ]  # fmt: skip
    summary = json.loads((workdir / 'summary.json').read_text())
    for split in ('validation', 'test'):
        assert {'left/accuracy', 'right/accuracy'} <= set(summary[split])
    assert 'data:image/' in (workdir / 'report.html').read_text(), 'a grey picture is shown'


def test_a_method_that_does_not_exist_is_named_before_the_data_are_made(tmp_path, capsys):
    data_dir = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, data_dir, base='configs.multi_mnist', argument='cagrda')
    assert train_tiny(tmp_path / 'run', config=config) == 1
    assert "'cagrda'; did you mean 'cagrad'?" in one_error(capsys)
    assert not (tmp_path / 'data').exists()
