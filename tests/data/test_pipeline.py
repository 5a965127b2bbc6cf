"""The loaders: content, order, exact positions, sharing by processes, and what workers must not change."""

import json

import jax
import numpy as np
import pytest

from mmtl_jax import data
from tests.data import small


def equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def loader(prepared, **options):
    options = {
        'batch_size': 8,
        'seed': 3,
        'layout': prepared.layout,
        'modality_dropout': 0.3,
        'num_threads': 0,
    } | options
    return data.train_loader(options.pop('rows', prepared.rows), **options)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize('options', [{'num_threads': 0}, {'num_threads': 2, 'prefetch': 3}])
def test_a_resumed_loader_goes_on_to_the_bit(options, prepared):
    # 12 batches an epoch: the break lies in the first, the end in the second.
    whole = take(loader(prepared), 16)
    first = loader(prepared, **options)
    for batch, expected in zip(take(first, 9), whole, strict=False):
        equal(batch, expected)
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    second = loader(prepared, **options)
    second.set_state(state)
    for batch, expected in zip(take(second, 7), whole[9:], strict=True):
        equal(batch, expected)
    second.set_state(state)
    equal(next(second), whole[9])
    second.close()


def test_a_position_of_other_data_is_refused(prepared):
    state = loader(prepared).get_state()
    with pytest.raises(ValueError, match='the saved position belongs to other data: seed was 3, now it is 4'):
        loader(prepared, seed=4).set_state(state)
    with pytest.raises(ValueError, match='batch_size was 8, now it is 16'):
        loader(prepared, batch_size=16).set_state(state)


@pytest.mark.parametrize('process_count', [2, 4])
def test_processes_load_their_rows_of_the_same_batches(process_count, prepared):
    whole = take(loader(prepared), 4)
    parts = [
        take(loader(prepared, process_index=index, process_count=process_count), 4) for index in range(process_count)
    ]
    for expected, *batches in zip(whole, *parts, strict=True):
        equal(jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches), expected)


def test_another_epoch_draws_anew(prepared):
    batches = take(loader(prepared, modality_dropout=0.0), 2 * 12)
    pictures = [batch.inputs['image'][batch.present['image']] for batch in batches]
    first, second = (np.concatenate(pictures[part]) for part in (slice(0, 12), slice(12, 24)))
    same = {picture.tobytes() for picture in first} & {picture.tobytes() for picture in second}
    assert len(same) < 0.2 * len(first)


def test_batches_hold_what_the_rows_hold(prepared):
    seen = []
    for rows, batch in data.eval_loader(prepared.validation, batch_size=8, layout=prepared.layout):
        seen += rows[rows >= 0].tolist()
        np.testing.assert_array_equal(batch.real, rows >= 0)
        assert not batch.present['image'][~batch.real].any()
        assert not batch.labelled['shape'][~batch.real].any()
        for place, row in enumerate(rows):
            if row < 0:
                continue
            example = prepared.validation.source[row]
            assert prepared.validation.example_id(row) == example['id']
            ids = batch.inputs['caption'].values[place][batch.inputs['caption'].mask[place]]
            assert data.decode(ids, prepared.vocabularies['caption']) == example['caption']
            assert batch.present['caption'][place] == bool(example['caption'])
            assert batch.present['speech'][place] == bool(len(example['speech']))
            assert batch.present['image'][place] == (example['image'].shape != (1, 1, 3))
            assert batch.present['table'][place] == (not np.isnan(example['table']).any())
            assert batch.labelled['shape'][place] == (example['shape'] >= 0)
            assert batch.labelled['transcript'][place] == bool(example['transcript'])
            if example['shape'] >= 0:
                assert batch.targets['shape'][place] == example['shape']
            values = prepared.preprocess.visit(prepared.validation.row(int(row)), None)
            if values['inputs/image'] is not None:
                np.testing.assert_allclose(batch.inputs['image'][place], values['inputs/image'] / 255, atol=1e-6)
            if values['inputs/speech'] is not None:
                mask = batch.inputs['speech'].mask[place]
                assert mask.sum() == len(values['inputs/speech'])
                np.testing.assert_array_equal(batch.inputs['speech'].values[place][mask], values['inputs/speech'])
    assert sorted(seen) == list(range(small.NUMBERS['num_validation']))


def test_an_evaluation_loader_can_be_gone_through_again(prepared):
    batches = data.eval_loader(prepared.validation, batch_size=8, layout=prepared.layout)
    first, second = list(batches), list(batches)
    assert len(first) == len(second) == len(batches)
    equal(first, second)


def test_everything_is_finite_and_every_batch_has_one_of_few_shapes(prepared):
    shapes = set()
    for batch in take(loader(prepared), 24):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch))
        shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves(batch)))
    assert len(shapes) <= prepared.layout.num_buckets


def test_a_dropped_modality_looks_like_a_missing_one(prepared):
    rate = {'image': 0.5}
    dropped = take(loader(prepared, modality_dropout=rate), 12)
    full = take(loader(prepared, modality_dropout=0.0), 12)
    gone = 0
    for with_dropout, without in zip(dropped, full, strict=True):
        changed = with_dropout.present['image'] != without.present['image']
        assert not with_dropout.inputs['image'][~with_dropout.present['image']].any()
        np.testing.assert_array_equal(with_dropout.present['caption'], without.present['caption'])
        equal(with_dropout.targets, without.targets)
        gone += changed.sum()
    assert 25 < gone < 60


def test_a_row_keeps_a_subset_of_what_it_has(prepared):
    kept = take(loader(prepared, modality_dropout={'subsets': {'image_speech': 1.0}}), 4)
    full = take(loader(prepared, modality_dropout=0.0), 4)
    for batch, whole in zip(kept, full, strict=True):
        both = whole.present['image'] & whole.present['speech']
        for name, present in batch.present.items():
            stays = whole.present[name] & ~both if name not in ('image', 'speech') else whole.present[name]
            np.testing.assert_array_equal(present, stays)
    assert any(
        (batch.present['caption'] < whole.present['caption']).any() for batch, whole in zip(kept, full, strict=True)
    )


def test_mixed_sources_fill_what_one_lacks(prepared):
    preprocess = data.build_preprocess(
        inputs={'table': 'table'},
        targets={'amount': 'amount'},
        steps=[{'name': 'standardise', 'key': 'table', 'statistics': 'table'}],
        vocabularies=prepared.vocabularies,
    )
    tables = data.prepare(prepared.source, preprocess)
    layout = data.make_layout([prepared.rows, tables], buckets=small.BUCKETS)
    mixed = data.train_loader(
        [prepared.rows, tables], batch_size=8, seed=0, layout=layout, weights=[1, 3], num_threads=0
    )
    assert mixed.batches_per_epoch == 25
    batches = take(mixed, 25)
    pictures = np.concatenate([batch.present['image'] for batch in batches])
    tables = np.concatenate([batch.present['table'] for batch in batches])
    # A quarter of the rows can have a picture.
    assert 30 < pictures.sum() <= 50
    assert tables.sum() > 140
    assert not np.concatenate([batch.labelled['shape'] for batch in batches])[~pictures & tables].all()


def test_bad_examples_are_counted(prepared):
    examples = [{'x': np.ones(2), 'label': index % 4} for index in range(8)]
    preprocess = data.build_preprocess(inputs={'x': 'x'}, targets={'t': {'key': 'label', 'num_classes': 3}})
    rows = data.prepare(data.SequenceSource(examples), preprocess, bad_examples='skip')
    layout = data.make_layout(rows)
    training = data.train_loader(rows, batch_size=8, seed=0, layout=layout, num_threads=0)
    batch = next(training)
    assert (training.num_bad, (~batch.real).sum()) == (2, 2)
    assert not batch.labelled['t'][~batch.real].any()
    state = json.loads(json.dumps(training.get_state()))
    resumed = data.train_loader(rows, batch_size=8, seed=0, layout=layout, num_threads=0)
    resumed.set_state(state)
    next(resumed)
    assert resumed.num_bad == 4, 'a resumed run goes on counting'


def test_without_a_cache_batches_are_the_same(prepared):
    rows = data.prepare(prepared.source, prepared.preprocess, cache_bytes=0)
    assert data.make_layout(rows, buckets=small.BUCKETS) == prepared.layout
    equal(take(loader(prepared, rows=rows), 3), take(loader(prepared), 3))


@pytest.mark.slow  # Starting two processes that import JAX takes seconds.
def test_worker_processes_change_nothing(prepared):
    rows = data.prepare(prepared.source, prepared.preprocess, cache_bytes=0)
    workers = loader(prepared, rows=rows, num_workers=2, num_threads=1)
    expected = take(loader(prepared), 5)
    equal(take(workers, 3), expected[:3])
    state = workers.get_state()
    workers.close()
    workers.set_state(state)
    equal(take(workers, 2), expected[3:])
    workers.close()


def test_augmentation_that_changes_the_shape_is_named(prepared):
    preprocess = data.build_preprocess(
        inputs={'image': 'image'}, targets={}, augment=[{'name': 'random_crop', 'key': 'image', 'size': 16}]
    )
    rows = data.prepare(data.SequenceSource([{'image': np.zeros((20, 20, 3), np.uint8)}]), preprocess)
    training = data.train_loader(rows, batch_size=1, seed=0, layout=data.make_layout(rows), num_threads=0)
    message = r'inputs/image: a row has shape \(16, 16, 3\), expected \(20, 20, 3\); every example must have'
    with pytest.raises(ValueError, match=message):
        next(training)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'batch_size': 101}, 'training has 100 rows, fewer than the batch size 101'),
        ({'process_count': 3}, 'batch_size 8 must be a multiple of the 3 processes'),
        ({'process_index': 2, 'process_count': 2}, 'expected 0 <= process_index < process_count, got 2 of 2'),
        ({'modality_dropout': {'picture': 0.1}}, "modality_dropout: there is no modality 'picture'; choose from"),
        ({'modality_dropout': 1.0}, "modality_dropout of 'image' must be at least 0 and below 1, got 1.0"),
        ({'num_threads': -1}, 'expected num_threads >= 0, num_workers >= 0 and prefetch >= 1, got -1, 0 and 4'),
        ({'weights': [1, 2]}, 'weights must be 1 positive numbers'),
    ],
)
def test_what_cannot_be_loaded(options, message, prepared):
    with pytest.raises(ValueError, match=message):
        loader(prepared, **options)
