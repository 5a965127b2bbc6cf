"""The config of the scenes: its argument, and two steps on scenes of a miniature of the stamps."""

import json

import pytest

from configs import stamp_scenes
from mmtl_jax.data.builders import stamps_index, stamps_package
from mmtl_jax.run import saved_experiment
from tests.data.builders import miniature_stamps
from tests.verbs import edited, train_tiny

SMALL = """config.data.sources[0]['builder_kwargs'] = dict(num_train=12, num_validation=4, num_test=4)
    config.data.batch_size = config.data.eval_batch_size = 8
    config.encoders.image.update({'width': 8, 'stage_widths': (8, 8), 'stage_sizes': (1, 1), 'patch': 8})
    config.fusion.width = config.sharing.width = 8
    config.tasks.objects.width = config.tasks.foreground.width = 8
    config.training.update({'num_steps': 2, 'log_every': 1, 'eval_every': 2})
    config.results.num_samples = 2"""


@pytest.mark.parametrize(
    ('argument', 'tasks'),
    [
        ('', ('category', 'objects', 'foreground')),
        ('objects', ('objects',)),
        ('category_foreground', ('category', 'foreground')),
    ],
)
def test_the_argument_names_tasks(argument, tasks):
    config = stamp_scenes.get_config(argument)
    assert set(config.tasks) == set(config.data.targets) == set(tasks)


def test_the_categories_are_those_of_the_stamps():
    assert stamp_scenes.CATEGORIES == stamps_index.CATEGORIES


def test_the_argument_names_a_sharing_scheme():
    for arguments, scheme in (('', 'Hard'), ('objects', 'Hard'), ('category_objects/MTAN', 'MTAN'), ('/PLE', 'PLE')):
        config = stamp_scenes.get_config(arguments)
        assert config.sharing.name == scheme
        assert {spec.get('reads', 'fused') for spec in config.tasks.values()} == {'fused'}
    assert set(config.tasks) == {'category', 'objects', 'foreground'}


def test_an_argument_that_is_no_task():
    with pytest.raises(ValueError, match=r"no task 'boxes'; choose from \['category', 'objects', 'foreground'\]"):
        stamp_scenes.get_config('boxes')


@pytest.mark.slow
def test_the_scenes_train_from_end_to_end(tmp_path, monkeypatch):
    pytest.importorskip('pycocotools', reason='average precision is that of pycocotools')
    root = miniature_stamps.write_sprites(tmp_path / 'package')
    monkeypatch.setattr(stamps_package, 'INSTALLED', root)
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(root))
    workdir = tmp_path / 'run'
    data_dir = f"config.data.sources[0]['data_dir'] = {str(tmp_path / 'data')!r}"
    config = edited(tmp_path, f'{data_dir}\n    {SMALL}', base='configs.stamp_scenes', argument='/MTAN')
    assert train_tiny(workdir, config=config) == 0
    summary = json.loads((workdir / 'summary.json').read_text())
    for split in ('validation', 'test'):
        expected = {'category/accuracy', 'objects/ap50', 'objects/objects_ap50', 'foreground/miou', 'objects/loss'}
        assert expected <= set(summary[split])
    tasks = {task.name: task for task in saved_experiment(workdir).tasks}
    assert len(tasks['objects'].class_names) == stamp_scenes.NUM_CATEGORIES
    assert tasks['objects'].class_names == tasks['category'].class_names
    report = (workdir / 'report.html').read_text()
    assert 'foreground' in report
    assert 'data:image/' in report
