"""Published data sets by TFDS name: the sections of docs/data.md on generated files, and what to do without files."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmtl_jax import data
from mmtl_jax.core.types import Ragged
from mmtl_jax.data import preparation
from mmtl_jax.training.inputs import Inputs
from tests.data import generated

BLOCKS = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'data.md'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    for name, examples in generated.SETS.items():
        generated.write(name, folder, {'train': examples(), 'validation': examples()})
    return folder


@pytest.fixture(scope='module')
def sections():
    (block,) = (block for block in BLOCKS.findall(PAGE.read_text('utf8')) if 'published = {' in block)
    namespace = {}
    exec(block, namespace)
    return namespace['published']


def without_splits(section):
    return {key: value for key, value in section.items() if key != 'splits'}


@pytest.fixture(scope='module')
def batches(folder, sections):
    """Name -> one batch with every example, in their order."""
    found = {}
    for name, section in sections.items():
        source = data.load_source(name, 'train', data_dir=str(folder))
        rows = data.prepare(source, data.build_preprocess(**without_splits(section)))
        order, batch = next(iter(data.eval_loader(rows, batch_size=len(rows), layout=data.make_layout(rows))))
        names = [rows.example_id(row) for row in order]
        found[name] = dict(sorted((name, index) for index, name in enumerate(names))), batch
    return found


def test_every_set_has_its_section(sections):
    assert sections.keys() == generated.SETS.keys()


def test_pictures_and_classes(batches):
    for name, classes in (('cifar10', {'category': 10}), ('cifar100', {'category': 100, 'group': 20})):
        ids, batch = batches[name]
        assert list(ids) == [f'train_{n:05d}' for n in range(10)]
        order = list(ids.values())
        assert batch.inputs['image'].shape == (10, 32, 32, 3)
        assert {task: int(target[order].max()) for task, target in batch.targets.items()} == dict.fromkeys(classes, 9)
        expected = np.asarray(generated.cifar(10)[2]['image'], np.float32) / 255
        np.testing.assert_allclose(batch.inputs['image'][order[2]], expected, atol=1e-6)


def test_boxes(batches):
    ids, batch = batches['coco/2017']
    assert list(ids) == [f'{n:012d}.jpg' for n in range(4)], 'named by their files'
    order = list(ids.values())
    boxes, labels = batch.targets['detection']['boxes'], batch.targets['detection']['labels']
    assert isinstance(boxes, Ragged)
    # Crowds and boxes without area are left out; a picture without any is labelled nonetheless.
    np.testing.assert_array_equal(boxes.mask[order].sum(axis=1), [0, 1, 2, 3])
    np.testing.assert_array_equal(labels.mask, boxes.mask)
    assert batch.labelled['detection'].all()
    # 49 x 64 pixels become 172 x 224, with 26 rows of padding above.
    box = generated.objects(1, 80)[0]['bbox']
    expected = [(26 + 172 * box.ymin) / 224, box.xmin, (26 + 172 * box.ymax) / 224, box.xmax]
    np.testing.assert_allclose(boxes.values[order[1], 0], expected, atol=1e-6)
    assert batch.targets['classes'].shape == (4, 80)
    assert batch.targets['classes'][order[0]].sum() == 0

    ids, batch = batches['voc/2012']
    order = list(ids.values())
    np.testing.assert_array_equal(
        batch.targets['detection']['boxes'].mask[order].sum(axis=1), [0, 1, 0, 3], 'difficult ones are left out'
    )
    np.testing.assert_array_equal(np.flatnonzero(batch.targets['classes'][order[1]]), [1, 4])


def test_masks_and_heads(batches):
    ids, batch = batches['oxford_iiit_pet']
    assert list(ids) == [f'pug_{n}.jpg' for n in range(10)]
    order = list(ids.values())
    mask = batch.targets['segmentation']
    assert mask.shape == (10, 128, 128)
    assert set(np.unique(mask)) == {-1, 0, 1, 2}, 'padding is ignored'
    np.testing.assert_array_equal(batch.targets['head']['boxes'].mask[order].sum(axis=1), [1, 0, *[1] * 8])
    np.testing.assert_array_equal(batch.targets['breed'][order], range(10))

    ids, batch = batches['cityscapes']
    assert list(ids) == ['bonn_000000_000019', 'bonn_000001_000019']
    streets = batch.targets['segmentation'][list(ids.values())]
    assert streets.shape == (2, 128, 256)
    assert (streets[1] == 0).all(), 'number 7, the road, is class 0'
    # Number 3 is none of the 19: nothing of this picture is labelled.
    np.testing.assert_array_equal(batch.labelled['segmentation'][list(ids.values())], [False, True])


def test_depth(batches):
    _, batch = batches['nyu_depth_v2']
    depth = batch.targets['depth']
    assert (depth.shape, depth.dtype) == ((2, 96, 128), np.float32)
    assert (depth[:, :2] == 0).all()
    assert (depth[:, 3:] == 2.5).all()


@pytest.mark.parametrize('name', generated.SETS)
def test_each_is_selected_by_config_alone(name, folder, sections):
    inputs = Inputs(sources=({'name': name, 'data_dir': str(folder)},), batch_size=2, **sections[name])
    names = {inputs.rows('validation').example_id(row) for row in range(len(inputs.rows('validation')))}
    assert inputs.skipped == []
    assert {task for batch in inputs.empty_batches() for task in batch.targets} == sections[name]['targets'].keys()
    train = inputs.source('train')
    if 'splits' in sections[name]:
        assert (len(train), len(names)) == (9, 1)
        assert names.isdisjoint(data.read_values(train, data.sources.id_key(train.keys)))


def test_pictures_with_a_class_become_pictures_with_a_box(folder):
    (block,) = (block for block in BLOCKS.findall(PAGE.read_text('utf8')) if 'placed = {' in block)
    namespace = {}
    exec(block, namespace)
    source = data.load_source('cifar10', 'train', data_dir=str(folder))
    rows = data.prepare(source, data.build_preprocess(inputs={'image': 'image'}, **namespace['placed']))
    _, batch = next(iter(data.eval_loader(rows, batch_size=4, layout=data.make_layout(rows))))
    assert batch.inputs['image'].shape == (4, 64, 64, 3)
    labels = batch.targets['detection']['labels'].values[:, 0]
    np.testing.assert_array_equal(labels, batch.targets['category'])


def test_bad_annotations_are_refused_by_name_or_skipped_and_counted(folder, sections):
    """COCO has boxes without area; every picture made up here has one."""
    sources = ({'name': 'coco/2017', 'data_dir': str(folder)},)
    section = {'inputs': {'image': 'image'}, 'targets': sections['coco/2017']['targets']}
    section['targets'] = {'detection': section['targets']['detection']}
    refusing = Inputs(sources=sources, batch_size=2, **section)
    with pytest.raises(ValueError, match=r"'coco/2017', example '0+\d.jpg': .*has no area: .* clean_boxes cuts boxes"):
        refusing.rows('train')
    skipping = Inputs(sources=sources, batch_size=2, bad_examples='skip', **section)
    assert len(skipping.rows('train').bad) == 4
    assert len(skipping.skipped) == 4
    assert all('.jpg' in sentence and 'has no area' in sentence for sentence in skipping.skipped)


def test_augmentation_runs_on_them(folder, sections):
    section = without_splits(sections['oxford_iiit_pet'])
    layers = section['steps'][-1]['layers']
    mosaic = {'name': 'mosaic', 'layers': layers, 'size': 128, 'forget': ('label', 'species')}
    augment = [mosaic, {'name': 'random_spatial', 'layers': layers}]
    source = data.load_source('oxford_iiit_pet', 'train', data_dir=str(folder))
    rows = data.prepare(source, data.build_preprocess(**section, augment=augment))
    loader = data.train_loader(rows, batch_size=4, seed=0, layout=data.make_layout(rows))
    batch = next(loader)
    loader.close()
    assert batch.inputs['image'].shape == (4, 128, 128, 3)
    assert batch.targets['head']['boxes'].values.shape == (4, 8, 4)


def test_a_picture_that_cannot_be_decoded(tmp_path, sections):
    """The file's bytes are no picture: TFDS writes them as they are, as it does with those of a broken download."""
    examples = generated.voc(3)
    examples[1]['image'] = b'\xff\xd8\xff\xe0 not a picture'
    generated.write('voc/2012', tmp_path, {'train': examples})
    source, preprocess = (
        data.load_source('voc/2012', 'train', data_dir=str(tmp_path)),
        data.build_preprocess(**sections['voc/2012']),
    )
    with pytest.raises(
        ValueError, match=r"'voc/2012', example '2012_000001.jpg': cannot be read: .*bad_examples='skip'"
    ):
        data.prepare(source, preprocess)
    rows = data.prepare(source, preprocess, bad_examples='skip')
    assert len(rows.bad) == 1
    loader = data.train_loader(rows, batch_size=3, seed=0, layout=data.make_layout(rows))
    assert (next(loader).real.sum(), loader.num_bad) == (2, 1)
    loader.close()


ALL = r"preparing '{name}' needs the packages? {words}, which reading it afterwards does not: pip install {install}, th"
NEEDS = {
    'cifar10': (),
    'cifar100': (),
    'coco/2017': (),
    'voc/2012': (),
    'oxford_iiit_pet': (),
    'cityscapes': (),
    'nyu_depth_v2': ('h5py',),
}


@pytest.mark.parametrize('name', NEEDS)
def test_what_to_do_before_anything_is_downloaded(name, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError('it was downloaded')

    monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', fail)
    monkeypatch.setattr(preparation, '_is_installed', lambda package: False)
    packages = ('tensorflow', *NEEDS[name])
    words, install = ' and '.join(map(repr, packages)), ' '.join(packages)
    with pytest.raises(ValueError, match=ALL.format(name=name, words=words, install=install)) as caught:
        data.load_source(name, 'train', data_dir=str(tmp_path))
    sentence = str(caught.value)
    assert (
        f"tfds.builder('{name}', data_dir='{tmp_path}', file_format='array_record').download_and_prepare()" in sentence
    )
    assert f"its folder '{name.split('/')[0]}' then belongs into {tmp_path}." in sentence
    by_hand = f'put into {tmp_path}/downloads/manual what only you can download'
    assert (by_hand in sentence) == (name == 'cityscapes')
    if name == 'cityscapes':
        assert "'leftImg8bit_trainvaltest.zip' and 'gtFine_trainvaltest.zip'" in sentence
        assert 'https://www.cityscapes-dataset.com/login/' in sentence


def test_files_that_lack_although_all_packages_are_there(tmp_path, monkeypatch):
    """TFDS's own assertion is a sentence too."""
    monkeypatch.setattr(preparation, 'missing_packages', lambda builder: [])
    builder = preparation.make_builder('cityscapes', str(tmp_path), {})
    monkeypatch.setattr(type(builder), '_split_generators', lambda self, manager: manager.manual_dir)
    with pytest.raises(
        ValueError, match=r"preparing 'cityscapes' needs files obtained by hand: .*cityscapes-dataset.com"
    ):
        data.load_source('cityscapes', 'train', data_dir=str(tmp_path))


def test_what_a_builder_reaches_for():
    assert preparation.missing_packages(dict) == []
    assert preparation.missing_packages(type(preparation.make_builder('synthetic', None, {}))) == []


def test_a_prepared_version_is_found_without_the_code_that_made_it(folder):
    source = data.load_source('coco/2017:1.1.0', 'validation', data_dir=str(folder))
    assert len(source) == 4
    assert source.keys[0] in source[0]
