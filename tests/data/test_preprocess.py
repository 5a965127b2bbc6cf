"""From an example to the values of a row: wiring, missing values, and every kind of bad example."""

import numpy as np
import pytest

from mmtl_jax import data
from tests.data import small


def add_noise(key):
    def apply(example, rng):
        return {**example, key: example[key] + rng.normal()}

    return apply


def double(key):
    def apply(example):
        return {**example, key: 2 * example[key]}

    return apply


def not_a_function(key):
    return key


def broken(key):
    def apply(example):
        return {**example, key: example['no such key']}

    return apply


def source(*examples, name='rows'):
    return data.SequenceSource(list(examples), name, 'train')


def row(**changes):
    return {'id': 'r', 'table': np.ones(3, np.float32), 'ids': np.array([1, 2]), 'label': 1} | changes


def prepare(example, bad_examples='error', **options):
    fields = {'inputs': {'table': 'table'}, 'targets': {'shape': {'key': 'label', 'num_classes': 3}}} | options
    return data.prepare(source(row(), example), data.build_preprocess(**fields), bad_examples=bad_examples)


def test_only_what_is_needed_is_read_and_kept(prepared):
    assert prepared.preprocess.keys_to_read(prepared.source) == (
        'id', 'image', 'caption', 'speech', 'table', 'shape', 'group', 'count', 'transcript', 'amount', 'attributes',
    )  # fmt: skip
    kept = prepared.rows.row(0)
    assert kept.keys() == {
        'image', 'caption_ids', 'mel', 'table', 'shape', 'group', 'count', 'transcript_ids', 'amount', 'attributes',
    }  # fmt: skip
    assert kept['image'] is None or kept['image'].dtype == np.uint8
    assert kept['mel'] is None or kept['mel'].dtype == np.float16


def test_transforms_of_ones_own():
    preprocess = data.build_preprocess(
        inputs={'table': 'table'},
        targets={'shape': 'label'},
        steps=[{'name': f'{__name__}.double', 'key': 'table'}],
        augment=[{'name': f'{__name__}.add_noise', 'key': 'table'}],
    )
    rows = data.prepare(source(row()), preprocess)
    np.testing.assert_array_equal(rows.row(0)['table'], np.full(3, 2.0))
    augmented = preprocess.visit(rows.row(0), np.random.default_rng(0))['inputs/table']
    np.testing.assert_allclose(augmented, 2 + np.random.default_rng(0).normal() * np.ones(3))
    np.testing.assert_array_equal(preprocess.visit(rows.row(0), None)['inputs/table'], np.full(3, 2.0))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'steps': [{'name': 'rezise', 'key': 'image'}]}, "no transforms 'rezise'; did you mean 'resize'"),
        ({'steps': [{'name': 'resize', 'key': 'image'}]}, "resize needs the argument 'size'"),
        (
            {'steps': [{'name': 'random_flip', 'key': 'image'}]},
            "'random_flip' draws random numbers, so it belongs under",
        ),
        ({'eval_steps': [f'{__name__}.add_noise']}, "add_noise needs the argument 'key'"),
        (
            {'steps': [{'name': f'{__name__}.not_a_function', 'key': 'a'}]},
            'must build a function on one example, got str',
        ),
        (
            {'steps': [{'name': 'characters', 'key': 'c', 'vocabulary': 'captoin'}]},
            r"characters: vocabulary 'captoin' has not been fitted; there are \['caption'\]",
        ),
        ({'inputs': {}}, 'inputs is empty'),
        (
            {'inputs': {'image': {'key': 'image', 'raged': True}}},
            "inputs 'image': expected a key or a mapping with 'key'",
        ),
        ({'targets': {'a/b': 'c'}}, 'a modality or task cannot have "/" in its name'),
    ],
)
def test_what_cannot_be_built(options, message):
    fields = {'inputs': {'image': 'image'}, 'targets': {'shape': 'shape'}, 'vocabularies': {'caption': ['a']}} | options
    with pytest.raises(ValueError, match=message):
        data.build_preprocess(**fields)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'steps': [{'name': 'resize', 'key': 'imgae', 'size': 8}]},
            "the transform 'resize' reads the key 'imgae', which no example of 'synthetic' has; did you mean 'image'",
        ),
        ({'inputs': {'image': 'picture'}}, "the input 'image' reads the key 'picture'"),
        (
            {'targets': {'shape': {'group': 'gruop'}}},
            "target 'shape/group' reads the key 'gruop', .* did you mean 'group'",
        ),
        (
            {'steps': [{'name': 'select', 'keys': ['image']}]},
            "the target 'shape' reads the key 'shape', which no example of 'synthetic' has",
        ),
    ],
)
def test_a_key_that_nothing_provides(options, message, prepared):
    fields = {'inputs': {'image': 'image'}, 'targets': {'shape': 'shape'}} | options
    with pytest.raises(ValueError, match=message):
        data.prepare(prepared.source, data.build_preprocess(**fields))


NAN = np.array([1, np.nan, 1], np.float32)


@pytest.mark.parametrize(
    ('example', 'options', 'message'),
    [
        (row(table=NAN), {}, r"'rows', example 'r': input 'table' \(key 'table'\) holds NaN; set 'allow_nan': True"),
        (row(table=NAN + np.inf), {'inputs': {'table': {'key': 'table', 'allow_nan': True}}}, 'holds inf'),
        (row(label=3), {}, r"target 'shape' \(key 'label'\) is 3, expected 0 to 2 \(num_classes=3\)"),
        (row(label=-2), {}, r"target 'shape' \(key 'label'\) is -2, expected 0 to 2"),
        (
            row(ids=np.array([0, 1])),
            {'targets': {'t': {'key': 'ids', 'num_classes': 3}}},
            "'t' .* is 0, expected 1 to 2",
        ),
        (
            row(table=np.array([0.0, 2.0, 1.0])),
            {'inputs': {'x': 'ids'}, 'targets': {'t': {'key': 'table', 'num_classes': 3}}},
            "target 't' .* must be 3 numbers from 0 to 1",
        ),
        (row(table='words'), {}, "input 'table' is str, expected numbers; add a step such as characters"),
        (
            row(ids=np.array([1, 2, 3])),
            {'inputs': {'x': {'key': 'ids', 'max_length': 2}}},
            r"input 'x' \(key 'ids'\) has length 3, more than max_length=2; raise it, or set 'truncate': True",
        ),
        (
            row(),
            {'steps': [{'name': f'{__name__}.broken', 'key': 'table'}]},
            "the transform 'apply' failed: KeyError: 'no such key'",
        ),
    ],
)
def test_bad_examples_are_named(example, options, message):
    with pytest.raises(ValueError, match=message + r"(?s:.*)bad_examples='skip'"):
        prepare(example, **options)


def test_bad_examples_can_be_skipped():
    rows = prepare(row(id='bad', label=7), bad_examples='skip')
    assert rows.row(0) is not None
    assert rows.row(1) is None
    assert list(rows.bad) == [1]
    assert "example 'bad': target 'shape'" in rows.bad[1]
    with pytest.raises(ValueError, match="bad_examples is 'error' or 'skip', got 'ignore'"):
        prepare(row(), bad_examples='ignore')


def test_an_unreadable_example():
    class Torn(list):
        def __getitem__(self, index):
            if index == 2:
                raise OSError('torn file')
            return row(id=f'r{index}')

    preprocess = data.build_preprocess(inputs={'table': 'table'}, targets={'shape': 'label'})
    with pytest.raises(ValueError, match=r"example 'train\[2\]': cannot be read: OSError: torn file"):
        data.prepare(data.SequenceSource(Torn([0] * 3)), preprocess)


@pytest.mark.parametrize(
    ('change', 'present', 'labelled'),
    [
        ({}, True, True),
        ({'table': None}, False, True),
        ({'table': np.zeros(0)}, False, True),
        ({'table': np.full(3, np.nan)}, False, True),
        ({'label': None}, True, False),
        ({'label': -1}, True, False),
        ({'label': np.int64(-1)}, True, False),
        ({'label': np.nan}, True, False),
    ],
)
def test_what_counts_as_missing(change, present, labelled):
    rows = prepare(row(**change))
    layout = data.make_layout(rows)
    ((_, batch),) = data.eval_loader(rows, batch_size=2, layout=layout, num_threads=0)
    assert batch.present['table'].tolist() == [True, present]
    assert batch.labelled['shape'].tolist() == [True, labelled]
    assert batch.real.all()
    if not present:
        assert not batch.inputs['table'][1].any()


def test_missing_cells_and_optional_entries_are_kept():
    rows = prepare(
        row(table=NAN, label=-1),
        inputs={'table': {'key': 'table', 'allow_nan': True}},
        targets={'retrieval': {'group': 'id_number', 'table': {'key': 'label', 'optional': True}}},
        steps=[{'name': 'rename', 'keys': {'ids': 'unused'}}, f'{__name__}.number'],
    )
    ((_, batch),) = data.eval_loader(rows, batch_size=2, layout=data.make_layout(rows), num_threads=0)
    assert np.isnan(batch.inputs['table'][1]).tolist() == [False, True, False]
    assert batch.labelled['retrieval'].tolist() == [True, True]
    assert batch.targets['retrieval']['table'].tolist() == [1, -1]


def test_a_target_without_a_key_says_nothing_and_every_row_has_it():
    rows = prepare(row(label=None), targets={'shape': 'label', 'reconstruction': {}})
    ((_, batch),) = data.eval_loader(rows, batch_size=3, layout=data.make_layout(rows), num_threads=0)
    np.testing.assert_array_equal(batch.targets['reconstruction'], np.zeros(3, np.float32))
    # The last row is padding.
    assert batch.labelled['reconstruction'].tolist() == [True, True, False]
    assert batch.labelled['shape'].tolist() == [True, False, False]


def number():
    return lambda example: {**example, 'id_number': 4}


def test_without_a_cache_every_visit_prepares_again(prepared):
    rows = data.prepare(prepared.source, prepared.preprocess, cache_bytes=0)
    assert not rows.cached
    assert prepared.rows.cached
    assert prepared.rows.num_bytes > 0 == rows.num_bytes
    for index in (0, 17):
        for key, value in prepared.rows.row(index).items():
            np.testing.assert_array_equal(rows.row(index)[key], value)
        assert rows.example_id(index) == prepared.source[index]['id']


def test_progress_is_told():
    told = []
    preprocess = data.build_preprocess(inputs={'table': 'table'}, targets={})
    data.prepare(source(*[row()] * 70), preprocess, progress=lambda done, total: told.append((done, total)))
    assert told == [(64, 70), (70, 70)]


def test_fitted_values(prepared):
    texts = data.read_values(prepared.source, 'caption')
    assert prepared.vocabularies['caption'] == data.fit_vocabulary(texts, unknown=True)
    table = np.stack([value for value in data.read_values(prepared.source, 'table') if not np.isnan(value).any()])
    np.testing.assert_allclose(prepared.vocabularies['table']['mean'], table.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(prepared.vocabularies['table']['std'], table.std(axis=0), atol=1e-5)
    upper = source({'c': 'A b'}, {'c': ''})
    spec = {'key': 'c', 'steps': [{'name': 'normalise_text', 'key': 'c'}]}
    assert data.fit_vocabularies({'c': spec}, upper) == {'c': [' ', 'a', 'b']}


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'kind': 'words'}, "vocabulary 'c' needs a 'key'"),
        ({'key': 'caption', 'max_sise': 3}, "vocabulary 'c' has no argument 'max_sise'; did you mean 'max_size'"),
        ({'key': 'captoin'}, "has no key 'captoin'"),
        ({'key': 'caption', 'kind': 'letters'}, "got 'letters'"),
    ],
)
def test_what_cannot_be_fitted(spec, message, prepared):
    with pytest.raises(ValueError, match=message):
        data.fit_vocabularies({'c': spec}, prepared.source)


def test_the_small_specs_are_plain_values():
    # Transforms are configured by what JSON can hold.
    for spec in (*small.STEPS, *small.AUGMENT):
        assert all(isinstance(value, str | int | float) for value in spec.values())
