"""The shapes of batches: inferred, bucketed, saved, and what cannot be batched."""

import json

import jax
import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.core.types import Ragged


def rows_of(*values, field=None, augment=(), key='x'):
    examples = [{'id': f'r{index}', key: value} for index, value in enumerate(values)]
    preprocess = data.build_preprocess(inputs={'x': {'key': key, **(field or {})}}, targets={}, augment=augment)
    return data.prepare(data.SequenceSource(examples), preprocess)


def shape_of(*values, field=None, **options):
    return data.make_layout(rows_of(*values, field=field), **options).fields['inputs/x']


def test_ragged_or_not_is_inferred():
    zeros = np.zeros
    assert shape_of(zeros(3, int), zeros(3, int)) == data.layout.FieldLayout((), 'int32', (8,))
    assert shape_of(zeros((9, 4), np.float16)) == data.layout.FieldLayout((4,), 'float32', (16,))
    assert shape_of(zeros(3), zeros(3)) == data.layout.FieldLayout((3,), 'float32')
    assert shape_of(zeros(3), zeros(5)) == data.layout.FieldLayout((), 'float32', (8,))
    assert shape_of(zeros((4, 5, 3), np.uint8)) == data.layout.FieldLayout((4, 5, 3), 'float32', None, True)
    assert shape_of(3, 4) == data.layout.FieldLayout((), 'int32')
    assert shape_of(zeros(3, int), field={'ragged': False, 'dtype': 'float32'}).shape == (3,)
    assert shape_of(zeros(3), field={'ragged': True, 'max_length': 5}).lengths == (5,)


def test_the_layout_of_the_small_data(prepared):
    layout = prepared.layout
    assert (layout.bucket_by, layout.boundaries, layout.num_buckets) == ('inputs/speech', (15, 30, 60), 3)
    assert layout.fields['inputs/speech'].lengths == (15, 30, 60)
    assert layout.fields['inputs/image'].shape == (16, 16, 3)
    assert layout.fields['targets/attributes'].dtype == 'float32'
    assert all(length % 8 == 0 for length in layout.fields['inputs/caption'].lengths)
    assert data.Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_other_lengths_are_those_that_a_bucket_needs():
    ids = [np.ones(n, int) for n in (3, 9, 30, 12)]
    examples = [{'x': np.zeros((n, 2)), 'ids': value} for n, value in zip((4, 5, 9, 20), ids, strict=True)]
    preprocess = data.build_preprocess(inputs={'x': 'x', 'ids': 'ids'}, targets={})
    rows = data.prepare(data.SequenceSource(examples), preprocess)
    layout = data.make_layout(rows, buckets={'x': (5, 10, 15, 20)})
    assert layout.fields['inputs/ids'].lengths == (16, 32, 32, 32)
    assert layout.assign(rows, training=False).tolist() == [0, 0, 1, 3]


def test_buckets_leave_room_for_stretching():
    stretch = [{'name': 'time_stretch', 'key': 'x', 'high': 1.5}]
    rows = rows_of(*[np.zeros((n, 2)) for n in (6, 7, 10, 14)], augment=stretch)
    layout = data.make_layout(rows, buckets={'x': (10, 15)})
    assert layout.assign(rows, training=False).tolist() == [0, 0, 0, 1]
    # 14 * 1.5 exceeds the last bucket: it stays there and is cut.
    assert layout.assign(rows, training=True).tolist() == [0, 1, 1, 1]


def test_evaluation_has_the_shapes_of_training(prepared):
    layout = data.make_layout(prepared.validation, like=prepared.layout)
    assert layout == prepared.layout
    longer = rows_of(np.zeros(30, int))
    like = data.make_layout(rows_of(np.zeros(3, int)))
    assert data.make_layout(longer, like=like).fields['inputs/x'].lengths == (32,)
    assert data.make_layout(rows_of(None), like=like) == like


def test_a_rare_modality_is_found_without_a_cache():
    examples = [{'y': 1.0, 'x': np.ones(2, int) if index == 70 else None} for index in range(200)]
    inputs = {'x': {'key': 'x', 'max_length': 4}, 'y': 'y'}
    preprocess = data.build_preprocess(inputs=inputs, targets={})
    rows = data.prepare(data.SequenceSource(examples), preprocess, cache_bytes=0)
    assert data.make_layout(rows).fields['inputs/x'].lengths == (4,)


def test_truncation():
    rows = rows_of(np.arange(1, 9), field={'max_length': 5, 'truncate': True})
    ((_, batch),) = data.eval_loader(rows, batch_size=1, layout=data.make_layout(rows), num_threads=0)
    assert batch.inputs['x'].values.tolist() == [[1, 2, 3, 4, 5]]
    rows = rows_of(np.ones((9, 2)), field={'truncate': True})
    layout = data.make_layout(rows, buckets={'x': (4,)})
    ((_, batch),) = data.eval_loader(rows, batch_size=1, layout=layout, num_threads=0)
    assert batch.inputs['x'].mask.sum() == 4


def test_an_empty_batch_has_the_shapes_of_a_full_one(prepared):
    for _, batch in data.eval_loader(prepared.validation, batch_size=4, layout=prepared.layout, num_threads=0):
        bucket = prepared.layout.boundaries.index(batch.inputs['speech'].mask.shape[1])
        empty = data.empty_batch(prepared.layout, 4, bucket)
        assert shapes(batch) == shapes(empty)
        assert isinstance(empty.targets['transcript'], Ragged)
        assert empty.real.all()
    with pytest.raises(ValueError, match='there are 3 buckets, got 3'):
        data.empty_batch(prepared.layout, 4, 3)


def shapes(tree):
    return jax.tree.map(lambda array: (array.shape, array.dtype), tree)


@pytest.mark.parametrize(
    ('values', 'options', 'message'),
    [
        (
            [np.zeros((4, 4, 3)), np.zeros((5, 4, 3))],
            {},
            r"input 'x' has different shapes: \(4, 4, 3\) in example 'r0', \(5, 4, 3\) in 'r1'; give it one size",
        ),
        (
            [np.zeros((4, 2)), np.zeros((4, 3))],
            {},
            r"different shapes: \(2,\) in example 'r0', \(3,\) in 'r1'; they must agree after the first dimension",
        ),
        ([None, None], {}, "input 'x' is missing in every example of 'examples'"),
        (
            [np.zeros((4, 2)), np.zeros((9, 2))],
            {'buckets': {'x': (4, 8)}},
            "input 'x' of example 'r1' has length 9, more than the last bucket, 8",
        ),
        ([np.zeros((4, 2))], {'buckets': {'y': (4,)}}, r"there is no modality 'y'; choose one of \['x'\]"),
        ([np.zeros((4, 2))], {'buckets': {'x': (4,), 'y': (4,)}}, 'buckets are made by the length of one modality'),
        ([np.zeros((4, 2))], {'buckets': {'x': (8, 4)}}, r'must be positive and increasing, got \(8, 4\)'),
    ],
)
def test_what_has_no_layout(values, options, message):
    with pytest.raises(ValueError, match=message):
        data.make_layout(rows_of(*values), **options)


def test_a_number_is_not_ragged():
    with pytest.raises(ValueError, match=r"input 'x' is a single number \(example 'r0'\), it cannot be ragged"):
        shape_of(3, 4, field={'ragged': True})
    with pytest.raises(ValueError, match='either buckets or like, not both'):
        data.make_layout(rows_of(1), buckets={'x': (1,)}, like=data.Layout({}))
    with pytest.raises(ValueError, match='needs at least one prepared source'):
        data.make_layout([])


def test_mixed_sources_must_agree():
    first, second = rows_of(np.zeros(3)), rows_of(np.zeros(3), field={'ragged': True})
    with pytest.raises(ValueError, match="input 'x' must have the same ragged, max_length and dtype in every source"):
        data.make_layout([first, second])
