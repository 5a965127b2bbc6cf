"""The data set `stamp_scenes`, on a generated miniature of the stamps; the real one is marked `download`."""

import pathlib
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw
from tensorflow_datasets.object_detection import voc

from mmtl_jax import data
from mmtl_jax.data import preparation
from mmtl_jax.data.builders import stamps_index, stamps_package
from mmtl_jax.data.builders.stamp_scenes import caption, relation
from mmtl_jax.data.builders.stamp_scenes_drawing import (
    BACKGROUNDS,
    Placed,
    Scene,
    background,
    draw_scene,
    visible_parts,
)
from mmtl_jax.data.builders.stamp_scenes_sprites import Sprite, by_category, cut_out, read_sprites, short_name
from tests.data.builders import miniature_stamps as miniature

NUMBERS = {'num_train': 12, 'num_validation': 4, 'num_test': 4, 'image_size': 48, 'seed': 5}
SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """A miniature that passes for the installed package, with ellipses for its full squares."""
    root = miniature.write(tmp_path_factory.mktemp('package'))
    for number, path in enumerate(sorted(root.rglob('*.png'))):
        picture = Image.new('RGBA', (30, 20))
        ImageDraw.Draw(picture).ellipse((4, 2, 20 + number % 5, 16), fill=(200, 5 * number % 256, 40, 255))
        picture.save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stamps_package, 'INSTALLED', root)
        patch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(root))
        yield root


def load(folder, split='train', **numbers):
    return data.load_source('stamp_scenes', split, data_dir=str(folder), builder_kwargs={**NUMBERS, **numbers})


@pytest.fixture(scope='module')
def splits(package, tmp_path_factory):
    """Split -> its examples."""
    folder = tmp_path_factory.mktemp('data')
    return {split: list(load(folder, split)) for split in SPLITS}


def sprite(category='animals', name='a tiger'):
    return Sprite('x', 0, category, name, True, Image.new('RGBA', (10, 10), (255, 0, 0, 255)))


def block(top, left, bottom, right, size=20):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def placed(top, left, bottom, right, **which):
    return Placed(sprite(**which), block(top, left, bottom, right), 1.0)


def test_boxes_areas_and_masks_tell_the_same(splits):
    for examples in splits.values():
        for example in examples:
            instances, classes = example['instance_mask'][..., 0], example['segmentation_mask'][..., 0]
            assert example['image'].shape == (48, 48, 3)
            number = len(example['objects/label'])
            assert set(np.unique(instances)) - {0} == set(range(1, number + 1))
            np.testing.assert_array_equal(example['objects/id'], np.arange(1, number + 1))
            for row in range(number):
                seen = instances == example['objects/id'][row]
                rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
                edges = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
                np.testing.assert_allclose(example['objects/bbox'][row] * 48, edges, atol=1e-4)  # float32
                assert example['objects/area'][row] == seen.sum()
                assert (classes[seen] == example['objects/label'][row] + 1).all()
                assert 0.25 <= example['objects/visible'][row] <= 1
            assert set(classes[instances == 0]) <= {0, 255}
            assert sorted(set(example['objects/label'])) == list(example['labels'])
            assert example['label'] == example['objects/label'][example['objects/area'].argmax()]
            assert not example['objects/is_crowd'].any()
            assert example['image/filename'] == f'{example["id"]}.png'
    assert {split: len(examples) for split, examples in splits.items()} == {'train': 12, 'validation': 4, 'test': 4}


def test_the_sprites_of_the_splits_are_disjoint_and_never_split_a_group(package, splits):
    stamps = stamps_index.read_stamps(package)
    where = stamps_index.split_stamps(stamps, stamps_index.group_stamps(package, stamps))
    assert len(set(where.values())) == 3
    for split, examples in splits.items():
        used = {int(number) for example in examples for number in example['objects/stamp']}
        assert {where[stamps[number].stem] for number in used} == {split}


def test_every_scene_is_a_function_of_seed_split_and_number(splits, tmp_path):
    again = load(tmp_path)
    assert all(np.array_equal(one['image'], other['image']) for one, other in zip(splits['train'], again, strict=True))
    more = load(tmp_path, num_train=14, num_validation=0, num_test=0)
    by_id = {example['id']: example for example in more}
    assert np.array_equal(by_id['train-000003']['image'], {e['id']: e for e in again}['train-000003']['image'])
    other = {example['id']: example for example in load(tmp_path, seed=6, num_train=4)}
    assert not np.array_equal(by_id['train-000003']['image'], other['train-000003']['image'])


def test_features_are_named_and_typed_as_in_coco_and_voc(tmp_path):
    ours = load_builder(tmp_path).info.features
    theirs = voc.Voc(config='2012', data_dir=tmp_path).info.features
    for key in ('image', 'image/filename', 'objects', 'labels'):
        assert type(ours[key]) is type(theirs[key])
    for key in ('bbox', 'label'):
        assert type(ours['objects'].feature[key]) is type(theirs['objects'].feature[key])
    # COCO's own builder cannot even be looked at without TensorFlow.
    coco = {'id': np.int64, 'area': np.int64, 'is_crowd': np.bool_}
    assert {key: ours['objects'].feature[key].np_dtype for key in coco} == coco


def load_builder(folder):
    return preparation.make_builder('stamp_scenes', str(folder), NUMBERS)


def test_class_names_of_nested_keys(package, tmp_path):
    source = load(tmp_path, num_train=2, num_validation=0, num_test=0)
    for key in ('objects/label', 'label', 'labels'):
        assert source.class_names(key) == stamps_index.CATEGORIES
    assert source.class_names('objects/area') == source.class_names('nothing') == ()
    assert source.select(['objects/area'])[0].keys() == {'objects/area'}


def test_what_later_sprites_cover_is_not_seen():
    first, second, outside = block(0, 0, 10, 10), block(0, 5, 10, 20), block(0, 0, 0, 0)
    parts = visible_parts([(sprite(), first, 100), (sprite(), second, 200), (sprite(), outside, 50)])
    assert [part.share for part in parts] == [0.5, 0.75, 0.0]
    np.testing.assert_array_equal(parts[0].visible, block(0, 0, 10, 5))
    assert parts[0].box == (0, 0, 10, 5)
    assert parts[1].area == 150


def test_hidden_objects_are_ignored_in_the_class_mask():
    scene = Scene(np.zeros((20, 20, 3), np.uint8), (placed(0, 0, 5, 5, category='food'),), block(10, 10, 20, 20))
    classes = scene.classes(stamps_index.CATEGORIES)
    assert set(np.unique(classes)) == {0, stamps_index.CATEGORIES.index('food') + 1, 255}
    np.testing.assert_array_equal(classes == 255, scene.hidden)
    np.testing.assert_array_equal(scene.instances(), block(0, 0, 5, 5))


def test_most_hidden_objects_are_dropped(package):
    """With a strict threshold on crowded scenes some are; every other is seen by at least that share."""
    members = by_category(read_sprites(package, 32)['train'])
    options = {'image_size': 40, 'max_objects': 9, 'sizes': (0.4, 0.6), 'max_degrees': 180.0}
    scenes = [draw_scene(members, np.random.default_rng(n), min_visible=0.5, **options) for n in range(20)]
    assert sum(scene.hidden.any() for scene in scenes) > 3
    assert min(entry.share for scene in scenes for entry in scene.objects) >= 0.5
    assert all(not (scene.hidden & (scene.instances() > 0)).any() for scene in scenes)


def test_backgrounds_are_of_four_kinds():
    members = {'animals': [sprite()]}
    drawn = [np.asarray(background(members, 40, np.random.default_rng(seed))) for seed in range(24)]
    assert all(picture.shape == (40, 40, 3) and picture.dtype == np.uint8 for picture in drawn)
    numbers = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in drawn]
    assert numbers.count(1) > 1, 'plain'
    assert sum(number > 30 for number in numbers) > 8
    assert len(BACKGROUNDS) == 4


def test_cutting_out_keeps_what_is_opaque():
    picture = Image.new('RGBA', (40, 30))
    ImageDraw.Draw(picture).ellipse((5, 5, 24, 14), fill=(10, 200, 30, 255))
    cut = cut_out(picture, 100)
    assert cut.size == (20, 10)
    assert cut_out(picture, 10).size == (10, 5)
    assert cut_out(Image.new('RGBA', (9, 9)), 10) is None, 'nothing to be seen'
    assert cut_out(Image.new('RGBA', (9, 9), (1, 2, 3, 255)), 10) is None, 'a photograph without a mask'


def test_captions_say_what_lies_where():
    tiger, car = placed(0, 0, 8, 8), placed(2, 10, 8, 16, name='a red car')
    assert caption([tiger]) == 'a tiger'
    assert caption([car, tiger]) == 'a tiger left of a red car'
    ball = placed(18, 0, 20, 2, name='a ball')
    assert caption([ball, car, tiger]) == 'a tiger left of a red car and one more'
    assert caption([tiger, *[ball] * 12]) == 'a tiger above a ball and 11 more'
    assert relation((0, 9, 2, 11), (0, 0, 2, 2)) == 'right of'
    assert relation((9, 0, 11, 2), (0, 0, 2, 2)) == 'below'


def test_names_are_short():
    assert short_name('A tiger. It is big.', 'animals/tiger') == 'a tiger'
    assert short_name('Once upon a time there was an owl who sang.', 'animals/owl_2') == 'an owl'
    assert short_name('', 'symbols/12') == 'something'


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        ({'num_train': -1}, 'stamp_scenes: num_train must be at least 0, got -1'),
        ({'image_size': 16}, 'stamp_scenes: image_size must be at least 32 pixels, got 16'),
        ({'max_objects': 0}, 'stamp_scenes: max_objects must be between 1 and 254, got 0'),
        ({'min_size': 0.7}, 'expected 0 < min_size <= max_size <= 1, got 0.7 and 0.6'),
        ({'min_visible': 0.9}, 'min_visible must be between 0 and 0.5, got 0.9'),
        ({'objects': 3}, "stamp_scenes has no argument 'objects'; it takes"),
    ],
)
def test_bad_numbers(numbers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **numbers)


def test_without_any_sprite_one_sentence_says_so(package, tmp_path, monkeypatch):
    builder = load_builder(tmp_path)
    monkeypatch.setattr('mmtl_jax.data.builders.stamp_scenes.read_sprites', lambda *_: dict.fromkeys(SPLITS, ()))
    manager = types.SimpleNamespace(download_dir=tmp_path, manual_dir=tmp_path)
    with pytest.raises(ValueError, match="no stamp of the split 'train' has an alpha mask"):
        next(iter(builder._split_generators(manager)['train']))


@pytest.mark.download
def test_the_real_sprites():
    downloads = pathlib.Path(tfds.builder('stamps').data_dir_root) / 'downloads'
    sprites = read_sprites(stamps_package.obtain(downloads / 'stamps', downloads / 'manual'), 96)
    assert {split: len(members) for split, members in sprites.items()} == {'train': 653, 'validation': 96, 'test': 188}
    assert all(len(by_category(members)) == 12 for members in sprites.values())
