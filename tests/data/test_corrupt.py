"""Corrupted inputs of a split: where the corruption is put, what it leaves alone, and what does not fit."""

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data import transforms
from mmtl_jax.data.corrupt import corruption_names, places, steps_to

ROWS = 12


def examples():
    """Returns rows of a picture, a sound, a text and a table; the last row has none of them."""
    rng = np.random.default_rng(0)
    rows = [
        {
            'picture': rng.integers(0, 256, (20, 30, 3), dtype=np.uint8),
            'sound': rng.normal(size=800 + 80 * index).astype(np.float32),
            'text': f'some words of row {index}',
            'cells': np.array([index, 1.0], np.float32),
            'flag': index % 2,
            'kind': index % 3,
        }
        for index in range(ROWS)
    ]
    return [*rows, {'kind': 1, 'flag': None}]


def square(example):
    """A step of one's own, which does not say what it reads."""
    return {**example, 'mel': None if example.get('mel') is None else np.square(example['mel'])}


def own_step():
    return square


def darker(key, level=0.5):
    """A corruption of one's own."""
    return lambda example: {**example, key: (example[key] * (1 - level)).astype(np.uint8)}


STEPS = (
    {'name': 'resize', 'key': 'picture', 'size': 16},
    {'name': 'normalise_text', 'key': 'text', 'out': 'clean'},
    {'name': 'hashed_ngrams', 'key': 'clean', 'num_buckets': 50, 'out': 'ngrams'},
    {'name': 'characters', 'key': 'text', 'vocabulary': 'letters', 'out': 'letters'},
    {'name': 'log_mel', 'key': 'sound', 'out': 'mel', 'num_mels': 8, 'sample_rate': 8000},
    {'name': 'stack', 'keys': ('cells', 'flag'), 'out': 'table'},
)


def prepared(steps=STEPS, **options):
    vocabulary = {'letters': [' ', *'abcdefghijklmnopqrstuvwxyz0123456789']}
    preprocess = data.build_preprocess(
        inputs={'image': 'picture', 'caption': 'ngrams', 'speech': 'mel', 'table': {'key': 'table', 'allow_nan': True}},
        targets={'kind': 'kind', 'transcript': {'key': 'letters', 'ragged': True}},
        steps=steps, vocabularies=vocabulary, **options,
    )  # fmt: skip
    source = data.prepare(data.SequenceSource(examples()), preprocess)
    return source, data.make_layout(source)


@pytest.fixture(scope='module')
def split():
    return prepared()


CASES = [
    ('image', 'noise', 'image_noise', 'picture', 0),
    ('image', 'occlusion', 'image_occlusion', 'picture', 0),
    ('speech', 'snr', 'audio_snr', 'sound', 0),
    ('speech', 'dropout', 'audio_dropout', 'sound', 0),
    ('speech', 'masks', 'audio_masks', 'mel', 1),
    ('caption', 'typos', 'text_typos', 'text', 0),
    ('table', 'dropout', 'table_dropout', 'table', 1),
    ('table', 'noise', 'table_noise', 'table', 1),
    ('image', 'image_blur', 'image_blur', 'picture', 0),
    ('image', f'{__name__}.darker', f'{__name__}.darker', 'picture', 0),
]


@pytest.mark.parametrize(('modality', 'short', 'name', 'key', 'before'), CASES)
def test_stands_where_the_input_comes_in(split, modality, short, name, key, before):
    made = data.corrupt_input(*split, modality, short)
    assert (made.spec['name'], made.spec['key'], len(made.before)) == (name, key, before)
    values = made.at(0.6)(3)
    clean = split[0].preprocess.visit(split[0].row(3), None)
    assert set(values) == {f'inputs/{modality}'}
    assert not np.array_equal(values[f'inputs/{modality}'], clean[f'inputs/{modality}'], equal_nan=True)
    np.testing.assert_array_equal(made.at(0.0)(3)[f'inputs/{modality}'], clean[f'inputs/{modality}'])
    np.testing.assert_array_equal(made.at(0.6)(3)[f'inputs/{modality}'], values[f'inputs/{modality}'])


def test_the_corruption_comes_before_the_other_steps(split):
    made = data.corrupt_input(*split, 'image', 'noise', seed=5)
    noisy = transforms.image_noise('picture', 0.5)(examples()[3], np.random.default_rng([5, 3]))
    expected = transforms.resize('picture', 16)(noisy)['picture']
    np.testing.assert_array_equal(made.at(0.5)(3)['inputs/image'], expected)


def test_only_what_the_input_needs_is_read(split):
    assert set(data.corrupt_input(*split, 'caption', 'swap').source.keys) == {'text'}
    assert set(data.corrupt_input(*split, 'table', 'noise').source.keys) == {'cells', 'flag'}


def test_noise_of_a_table_knows_the_deviation_of_the_split(split):
    table = np.stack([np.append(row['cells'], row['flag']) for row in examples()[:ROWS]])
    deviation = data.corrupt_input(*split, 'table', 'noise').spec['deviation']
    np.testing.assert_allclose(deviation, table.std(axis=0), rtol=1e-6)


def test_batches_have_corrupt_inputs_and_clean_labels(split):
    source, layout = split
    made = data.corrupt_input(source, layout, 'caption', 'deletion')
    clean, same, gone = (
        list(data.eval_loader(source, batch_size=8, layout=layout, corrupt=corrupt))
        for corrupt in (None, made.at(0.0), made.at(1.0))
    )
    for (rows, batch), (_, other), (_, without) in zip(clean, same, gone, strict=True):
        for name in ('image', 'speech', 'table'):
            for part in (other, without):
                np.testing.assert_array_equal(*(np.asarray(b.present[name]) for b in (batch, part)))
        np.testing.assert_array_equal(batch.inputs['caption'].values, other.inputs['caption'].values)
        assert not without.present['caption'].any(), 'a text of which nothing is left is missing'
        assert batch.present['caption'].any()
        for part in (other, without):
            np.testing.assert_array_equal(batch.targets['transcript'].values, part.targets['transcript'].values)
            np.testing.assert_array_equal(batch.labelled['transcript'], part.labelled['transcript'])
            np.testing.assert_array_equal(batch.real, part.real)
        assert len(rows) == 8


def test_a_step_of_ones_own_is_kept_in_its_place():
    source, layout = prepared((*STEPS, {'name': f'{__name__}.own_step'}))
    made = data.corrupt_input(source, layout, 'speech', 'snr')
    assert (made.spec['key'], len(made.before), made.after[-1]) == ('sound', 0, square)
    clean = source.preprocess.visit(source.row(3), None)['inputs/speech']
    np.testing.assert_array_equal(made.at(0.0)(3)['inputs/speech'], clean)


def test_places_end_where_a_value_is_made_of_several():
    crop = transforms.centre_crop('picture', 4)
    steps = (transforms.rename({'photo': 'picture', 'a': 'b'}), crop, transforms.stack(('b', 'c'), 'table'))
    assert places(steps, 'picture') == [(0, 'photo'), (1, 'picture'), (2, 'picture'), (3, 'picture')]
    assert places(steps, 'table') == [(3, 'table')]
    assert steps_to('picture', steps) == steps[:2]
    assert steps_to('table', steps) == (steps[0], steps[2])


def test_every_corruption_is_a_transform():
    assert {f'{kind}_{short}' for kind, names in data.CORRUPTIONS.items() for short in names} <= set(transforms.__all__)


def test_a_name_that_sounds_and_tables_share_means_the_kind_at_hand():
    assert corruption_names('dropout', ragged=True) == ['audio_dropout', 'table_dropout']
    assert corruption_names('dropout', ragged=False) == ['table_dropout', 'audio_dropout']


@pytest.mark.parametrize(
    ('modality', 'corruption', 'sentence'),
    [
        ('depth', 'noise', r"no modality 'depth' to corrupt; the inputs are \['caption', 'image', 'speech', 'table'\]"),
        ('image', 'nois', "no corruption 'nois'; did you mean 'noise'"),
        ('image', 'xxx', "no corruption 'xxx'; there are image: noise, blur, .*; audio: snr"),
        ('caption', 'blur', "'caption' cannot be corrupted: image_blur needs a picture .*, but 'text' is of type str"),
        ('image', 'typos', "text_typos needs a text, but 'picture' is an array of uint8 and shape"),
        ('image', 'no_lab.rain', "cannot import 'no_lab.rain'"),
    ],
)
def test_what_does_not_fit(split, modality, corruption, sentence):
    with pytest.raises(ValueError, match=sentence):
        data.corrupt_input(*split, modality, corruption)
