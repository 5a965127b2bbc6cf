"""Sources: TFDS names, one's own functions, partial decoding, and every way it can fail."""

import pickle
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmtl_jax import data
from mmtl_jax.data import preparation, sources
from tests.data.small import NUMBERS


def numbers(split, size=3):
    return [{'id': f'{split}{index}', 'value': index, 'note': 'x'} for index in range(size)]


def no_source(split):
    del split
    return 7


def list_of_lists(split):
    del split
    return [[1, 2]]


def test_labels_lists_of_them_and_masks_have_names():
    label = tfds.features.ClassLabel(names=['ant', 'bee'])
    mask = tfds.features.LabeledImage(labels=['ground', 'ant'], shape=(None, None, 1))
    features = {'label': label, 'labels': tfds.features.Sequence(label), 'mask': mask, 'text': tfds.features.Text()}
    builder = types.SimpleNamespace(info=types.SimpleNamespace(features=tfds.features.FeaturesDict(features)))
    source = sources.TfdsSource('made_up', 'train')
    source.__dict__['builder'] = builder
    names = [source.class_names(key) for key in (*features, 'none')]
    assert names == [('ant', 'bee'), ('ant', 'bee'), ('ground', 'ant'), (), ()]


def test_a_function_of_ones_own():
    source = data.load_source(f'{__name__}.numbers', 'test', builder_kwargs={'size': 2})
    assert (len(source), source.split, source.keys) == (2, 'test', ('id', 'value', 'note'))
    assert source[1] == {'id': 'test1', 'value': 1, 'note': 'x'}
    assert source.select(['value'])[1] == {'value': 1}
    assert data.read_values(source, 'value') == [0, 1]
    assert source.class_names('value') == ()


def test_selected_keys_are_all_that_is_decoded(prepared, monkeypatch):
    def fail(*_):
        raise AssertionError('a picture was decoded')

    monkeypatch.setattr(tfds.features.Image, 'decode_example_np', fail)
    captions = data.read_values(prepared.source, 'caption')
    assert len(captions) == NUMBERS['num_train']
    assert all(isinstance(caption, str) for caption in captions)
    assert prepared.source.select(['caption', 'shape'])[0].keys() == {'caption', 'shape'}


def test_a_source_can_travel_to_another_process(prepared):
    source = pickle.loads(pickle.dumps(prepared.source))
    assert source[3]['id'] == prepared.source[3]['id']


def test_slices_of_a_split(data_dir, prepared):
    part = data.load_source('synthetic', 'train[:25%]', data_dir=data_dir, builder_kwargs=NUMBERS)
    assert len(part) == 25
    assert part[0]['id'] == prepared.source[0]['id']
    with pytest.raises(IndexError, match='has 25 examples, there is no number 25'):
        part[25]


@pytest.mark.parametrize(
    ('name', 'split', 'message'),
    [
        (
            'synthetik',
            'train',
            r"no data set 'synthetik': expected one of \['multi_mnist', 'stamp_scenes', 'stamps', 'synthetic'\]",
        ),
        ('synthetic', 'tset', r"'synthetic' has no split 'tset'; it has \['test', 'train', 'validation'\]"),
        ('my_lab.rows', 'train', "cannot import the source 'my_lab.rows'"),
        ('tests.data.test_sources.nowhere', 'train', 'cannot import the source'),
        ('tests.data.test_sources.no_source', 'train', 'must return something with len and integer indexing, got int'),
        ('tests.data.test_sources.list_of_lists', 'train', 'an example must be a mapping of keys to values, got list'),
    ],
)
def test_what_cannot_be_loaded(name, split, message, data_dir):
    with pytest.raises(ValueError, match=message):
        data.load_source(name, split, data_dir=data_dir, builder_kwargs=NUMBERS if name == 'synthetic' else None)[0]


def test_an_empty_split():
    with pytest.raises(ValueError, match=r"the split 'train' of 'tests.data.test_sources.numbers' has no examples"):
        data.load_source('tests.data.test_sources.numbers', 'train', builder_kwargs={'size': 0})


def test_an_unknown_key_is_named(prepared):
    with pytest.raises(ValueError, match="'synthetic' has no key 'imgae'; it has"):
        prepared.source.select(['imgae'])


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (ModuleNotFoundError('no', name='tensorflow.io'), "needs the package 'tensorflow', .* pip install tensorflow"),
        (AssertionError('put a.tar into manual'), 'needs files obtained by hand: put a.tar into manual'),
        (ConnectionError('no network'), "'digits' cannot be downloaded or written to /somewhere: no network"),
    ],
)
def test_what_cannot_be_prepared(error, message, monkeypatch):
    def fail(**_):
        raise error

    builder = types.SimpleNamespace(is_prepared=lambda: False, download_and_prepare=fail, data_dir='/somewhere')
    monkeypatch.setattr(preparation, 'make_builder', lambda *_: builder)
    with pytest.raises(ValueError, match=message):
        data.load_source('digits', 'train')


def test_what_is_nested_is_reached_by_a_path():
    inner = {'bbox': tfds.features.BBoxFeature(), 'note': tfds.features.Text()}
    features = {
        'plain': tfds.features.Tensor(shape=(2,), dtype=np.int32),
        'objects': tfds.features.Sequence({**inner, 'parts': inner}),
        'numbers': tfds.features.Sequence(np.int64),
        'ragged': tfds.features.Sequence(tfds.features.Sequence(np.int64)),
        # Is read one by one, not as arrays.
        'steps': tfds.features.Dataset({'action': np.int64}),
    }
    found = sources.flatten(
        {key: sources._inner(feature) for key, feature in tfds.features.FeaturesDict(features).items()}
    )
    nested = {'objects/bbox', 'objects/note', 'objects/parts/bbox', 'objects/parts/note'}
    assert set(found) == {'plain', *nested, 'numbers', 'ragged', 'steps'}
    assert sources._stacked([], found['objects/bbox']).shape == (0, 4)
    assert sources._stacked([1, 2], found['numbers']).dtype == np.int64
    assert sources._stacked(['a'], found['objects/note']) == ['a']
    assert sources._stacked([[1], [2, 3]], found['ragged']) == [[1], [2, 3]]
    source = data.SequenceSource([{'id': 'a', 'objects': {'bbox': np.zeros((1, 4))}}])
    assert source.keys == ('id', 'objects/bbox')
    assert source.select(['objects/bbox'])[0].keys() == {'objects/bbox'}


def test_bytes_that_are_no_text_stay_bytes():
    assert sources._decode_text(b'\xff\xfe') == b'\xff\xfe'
    assert sources._decode_text(np.array([b'a', b'b'], object)) == ['a', 'b']
    assert sources._decode_text({'a': b'x'}) == {'a': 'x'}
