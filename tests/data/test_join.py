"""Several data sets as one: Cityscapes' classes and disparity, which TFDS has in two."""

import numpy as np
import pytest

from mmtl_jax import data
from tests.data import generated

NAMES = ('cityscapes/semantic_segmentation', 'cityscapes/stereo_disparity')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cityscapes')
    for name, examples in zip(NAMES, (generated.cityscapes(3), generated.stereo(2)), strict=True):
        generated.write(name, folder, {'train': examples})
    return str(folder)


@pytest.fixture(scope='module')
def streets(folder):
    return data.joined('train', names=NAMES, on='image_id', data_dir=folder)


def test_an_example_has_the_keys_of_both(streets):
    assert len(streets) == 2, 'the third has no disparity'
    assert set(streets.keys) == {'image_id', 'image_left', 'segmentation_label', 'image_right', 'disparity_map'}
    found = {example['image_id']: example for example in (streets[0], streets[1])}
    assert set(found) == {'bonn_000000_000019', 'bonn_000001_000019'}
    for number, example in enumerate(found[name] for name in sorted(found)):
        assert (example['image_left'][0, 0] == (number, 80, 120)).all()
        assert (example['image_right'][0, 0] == (number, 80, 120)).all(), 'the pictures of both are the same scene'
        assert (example['segmentation_label'] == (7 if number else 3)).all()


def test_sixteen_bits_stay_whole(streets):
    stored = streets.select(['disparity_map'])[0]['disparity_map']
    assert (stored.shape, stored.dtype) == ((1024, 2048, 1), np.uint16)
    expected = np.zeros((1024, 2048, 1), np.uint16)
    expected[100:] = generated.STORED_DISPARITY[:, None, None]
    np.testing.assert_array_equal(stored, expected)
    assert stored.max() > 255


def test_a_key_is_read_where_it_first_stands(streets):
    selected = streets.select(['image_left', 'disparity_map'])
    assert [source.keys for source in selected.sources] == [('image_left',), ('disparity_map',)]
    assert set(selected[1]) == {'image_left', 'disparity_map'}
    assert set(streets.select(['disparity_map'])[0]) == {'disparity_map'}
    assert streets.class_names('segmentation_label') == ()


def test_it_is_named_in_a_config(folder):
    arguments = {'names': NAMES, 'on': 'image_id', 'data_dir': folder}
    source = data.load_source('mmtl_jax.data.joined', 'train', builder_kwargs=arguments)
    assert source.name == ' + '.join(NAMES)
    assert source.split == 'train'


def test_what_cannot_be_joined(folder, streets):
    def sentence(split='train', **changed):
        with pytest.raises(ValueError, match='joined') as caught:
            data.joined(split, **{'names': NAMES, 'on': 'image_id', 'data_dir': folder, **changed})
        return str(caught.value)

    assert "names must be at least two data sets, got ('cityscapes',)" in sentence(names=('cityscapes',))
    assert "'train[:9%]' would cut each data set at places of its own" in sentence('train[:9%]')
    assert "'cityscapes/semantic_segmentation' has no key 'number'; it has ['image_id'" in sentence(on='number')
    with pytest.raises(ValueError, match=r"has no key 'depth'; it has \['disparity_map'"):
        streets.select(['depth'])
    with pytest.raises(IndexError, match='has 2 examples, there is no number 2'):
        streets[2]


def rows(*values):
    return data.SequenceSource([{'id': value, 'key': value} for value in values], name='rows')


@pytest.mark.parametrize(
    ('first', 'second', 'sentence'),
    [
        (rows('a', 'b', 'a'), rows('a'), r"'a' occurs twice under 'key' in 'rows'"),
        (rows('a'), rows('b'), r"'one' and 'other' have no 'key' in common in the split 'train'"),
    ],
)
def test_values_that_tell_no_pairs(first, second, sentence, monkeypatch):
    found = {'one': first, 'other': second}
    monkeypatch.setattr('mmtl_jax.data.join.load_source', lambda name, split, **_: found[name])
    with pytest.raises(ValueError, match=sentence):
        data.joined('train', names=('one', 'other'), on='key')
