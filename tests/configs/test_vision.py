"""The configs of the classic systems of pictures: each on made-up data of its own data set, and on a few scenes."""

import contextlib
import importlib
import json
import re

import jax
import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data.builders import stamps_package
from mmtl_jax.experiment import from_config
from tests.configs import small_vision
from tests.data import generated
from tests.data.builders import miniature_stamps
from tests.verbs import one_error, rows_of, train_tiny

CLASSES_AND_OBJECTS = {'classes': 'macro_f1', 'objects': 'ap50'}
# Config and argument -> task -> a score of it.
SYSTEMS = {
    'pets:': {'category': 'accuracy', 'segmentation': 'miou'},
    'pets:scenes': {'category': 'accuracy', 'segmentation': 'miou'},
    'cifar10:': {'category': 'accuracy', 'objects': 'objects_ap50'},
    'cifar10:scenes': {'category': 'accuracy', 'objects': 'objects_ap50'},
    'coco:': CLASSES_AND_OBJECTS,
    'coco:scenes': CLASSES_AND_OBJECTS,
    'coco_study:': CLASSES_AND_OBJECTS,
    'coco_study:scenes': CLASSES_AND_OBJECTS,
    'voc:': CLASSES_AND_OBJECTS,
    'voc:scenes': CLASSES_AND_OBJECTS,
    'nyu:': {'depth': 'rel_error', 'normals': 'angle_mean'},
    'nyu:mtan': {'segmentation': 'miou', 'depth': 'rel_error', 'normals': 'angle_mean'},
    'nyu:scenes': {'segmentation': 'miou', 'depth': 'rel_error', 'normals': 'angle_mean'},
    'cityscapes:': {'segmentation': 'miou', 'depth': 'abs_error'},
    'cityscapes:mtan': {'segmentation': 'miou', 'depth': 'abs_error'},
    'cityscapes:scenes': {'segmentation': 'miou', 'depth': 'abs_error'},
}
# The quickest; the others are trained in the slow tests.
QUICK = ('cityscapes:scenes',)
NAMES = tuple(dict.fromkeys(which.split(':')[0] for which in SYSTEMS))


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Returns a function from a config and its argument to the folder of its data, made when it is first asked for."""
    made = {}

    def folder(which):
        name, _, variant = which.partition(':')
        key = variant or name.removesuffix('_study')
        if key not in made:
            made[key] = tmp_path_factory.mktemp(key)
            if variant == 'mtan':
                small_vision.write_arrays(made[key])
            elif variant == '':
                small_vision.write(made[key], name)
        return made[key]

    return folder


@pytest.fixture(scope='module')
def sprites(tmp_path_factory):
    return miniature_stamps.write_sprites(tmp_path_factory.mktemp('sprites'))


@pytest.fixture(autouse=True)
def few_sprites(sprites, monkeypatch):
    """The scenes are made of the few stamps of a miniature."""
    monkeypatch.setattr(stamps_package, 'INSTALLED', sprites)
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(sprites))


@pytest.fixture(autouse=True)
def needs(request):
    pytest.importorskip('pycocotools', reason='average precision is that of pycocotools')


@pytest.fixture
def quick_compilation():
    """Compiles in half the time what runs for two steps."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.parametrize('which', SYSTEMS)
def test_each_builds_a_model_that_answers_all_tasks(which, folders):
    experiment = from_config(small_vision.get_config(f'{which}|{folders(which)}'))
    batch = experiment.inputs.empty_batches()[0]
    assert {task.name for task in experiment.tasks} == set(batch.targets) == set(SYSTEMS[which])

    def losses(key):
        predictions, _ = experiment.model.init_with_output({'params': key, 'dropout': key}, batch, train=True)
        return {task.name: task.loss(predictions[task.name], batch.targets[task.name]) for task in experiment.tasks}

    shapes = jax.eval_shape(losses, jax.random.key(0))
    assert {name: loss.shape for name, loss in shapes.items()} == dict.fromkeys(SYSTEMS[which], (2,))
    assert set(experiment.model.reads.values()) == {'fused'}, 'the sharing scheme stands between all tasks'


@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize(
    'which', [which if which in QUICK else pytest.param(which, marks=pytest.mark.slow) for which in SYSTEMS]
)
def test_each_trains_from_end_to_end(which, folders, tmp_path):
    workdir = tmp_path / 'run'
    config = f'tests/configs/small_vision.py:{which}|{folders(which)}'
    assert train_tiny(workdir, config=config) == 0
    assert [(row['step'], row['split']) for row in rows_of(workdir)] == [
        (1, 'train'), (2, 'train'), (2, 'validation')
    ]  # fmt: skip
    summary = json.loads((workdir / 'summary.json').read_text())
    expected = {f'{task}/{score}' for task, score in SYSTEMS[which].items()}
    expected |= {f'{task}/loss' for task in SYSTEMS[which]}
    splits = importlib.import_module(f'configs.{which.split(":")[0]}').get_config(which.split(':')[1]).results.splits
    for split in splits:
        assert expected <= set(summary[split])
    assert 'data:image/' in (workdir / 'report.html').read_text()


def rows_and_batch(which, folders, split):
    """Returns a batch of a small config with all rows of a split, augmented in training."""
    experiment = from_config(small_vision.get_config(f'{which}|{folders(which)}'))
    if split == 'train':
        with contextlib.closing(experiment.inputs.train_batches(jax.devices()[0])) as batches:
            return next(batches)
    rows = experiment.inputs.rows(split)
    layout = data.make_layout(rows)
    return next(iter(data.eval_loader(rows, batch_size=len(rows), layout=layout)))[1]


def test_disparity_is_in_pixels_of_the_small_picture(folders):
    depth = rows_and_batch('cityscapes:', folders, 'validation').targets['depth']
    # The middles of 32 rows among the 1,024 of the files, in pixels of a picture of 256 columns, an eighth of theirs.
    stored = np.zeros(1024)
    stored[100:] = generated.STORED_DISPARITY
    expected = np.maximum(stored[16::32] - 1, 0) / 256 / 8
    np.testing.assert_allclose(depth, np.broadcast_to(expected[:, None], depth.shape), rtol=1e-6)


def test_normals_of_a_wall_face_the_camera(folders):
    targets = rows_and_batch('nyu:', folders, 'validation').targets
    known = np.any(targets['normals'] != 0, axis=-1)
    assert (targets['depth'][known] == 2.5).all()
    assert known.mean() > 0.5
    np.testing.assert_allclose(targets['normals'][known], [[0, 0, -1]] * known.sum(), atol=1e-6)


def test_classes_are_those_of_the_boxes_that_are_left_after_a_mosaic(folders):
    targets = jax.device_get(rows_and_batch('coco_study:scenes', folders, 'train').targets)
    labels = targets['objects']['labels']
    for row in range(2):
        present = np.unique(labels.values[row][labels.mask[row]])
        np.testing.assert_array_equal(np.flatnonzero(targets['classes'][row]), present)


@pytest.mark.parametrize('name', NAMES)
def test_an_argument_that_a_config_does_not_take(name):
    known = ['', 'mtan', 'scenes'] if f'{name}:mtan' in SYSTEMS else ['', 'scenes']
    sentence = f"configs/{name}.py takes no argument 'scene'; it takes one of {known}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        importlib.import_module(f'configs.{name}').get_config('scene')


def test_weights_are_named_by_a_flag(folders, tmp_path, capsys):
    """The file is looked for, so the flag has arrived; without it the encoder begins with nothing."""
    config = f'tests/configs/small_vision.py:voc:|{folders("voc:")}'
    lacking = f'--config.encoders.image.pretrained={tmp_path / "resnet.safetensors"}'
    assert train_tiny(tmp_path / 'run', lacking, config=config) == 1
    assert 'resnet.safetensors' in one_error(capsys)


def test_what_only_a_person_can_download_is_asked_for(tmp_path, capsys):
    config = f'tests/configs/small_vision.py:nyu:mtan|{tmp_path}'
    assert train_tiny(tmp_path / 'run', config=config) == 1
    assert 'put what you download from https://github.com/lorenmt/mtan into' in one_error(capsys)
