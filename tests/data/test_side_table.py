"""Values computed once for a data set and kept beside it."""

import errno
import pickle

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data import side_table
from mmtl_jax.data.side_table import VALUES

EXAMPLES = [
    {'id': 'a', 'picture': np.zeros((2, 2), np.uint8), 'text': 'one', 'kind': 0},
    {'id': 'b', 'picture': np.ones((2, 2), np.uint8), 'text': 'two', 'kind': 1},
    {'id': 'c', 'picture': np.zeros((2, 2), np.uint8), 'text': 'one', 'kind': 1},
    {'id': 'd', 'picture': None, 'text': 'two', 'kind': 0},
]


@pytest.fixture
def source():
    return data.SequenceSource(EXAMPLES)


def test_rows_with_the_same_input_share_a_value(source, tmp_path):
    first, numbers = data.distinct_rows(source, ['picture'])
    assert (first, numbers.tolist()) == ([0, 1, 3], [0, 1, 0, 2])
    first, numbers = data.distinct_rows(source, ['picture', 'text'])
    assert (first, numbers.tolist()) == ([0, 1, 3], [0, 1, 0, 2])
    values = [np.arange(3, dtype=np.float32), np.arange(8, dtype=np.float32).reshape(2, 4)]
    table = data.write_side_table(tmp_path / 'side' / 'table', [0, 1, 0, -1], values, {'weights': 'abc'})
    assert len(table) == 4
    np.testing.assert_array_equal(table[0], values[0], strict=True)
    np.testing.assert_array_equal(table[1], values[1], strict=True)
    np.testing.assert_array_equal(table[2], values[0], strict=True)
    assert table[3] is None
    assert table.about == {'weights': 'abc'}
    table[1]
    again = pickle.loads(pickle.dumps(table))  # as worker processes get it, without open files
    np.testing.assert_array_equal(again[1], values[1])


def test_a_joined_source_has_the_arrays_as_further_keys(source, tmp_path):
    table = data.write_side_table(tmp_path / 'table', [0, 1, 0, -1], [np.zeros(2), np.ones(2)], {})
    joined = data.SourceWithTables(source, {'features': table})
    assert (joined.name, joined.split, len(joined)) == ('examples', 'train', 4)
    assert set(joined.keys) == {'id', 'picture', 'text', 'kind', 'features'}
    assert joined[1]['features'].tolist() == [1, 1]
    assert joined[3]['features'] is None
    assert joined[1]['text'] == 'two'
    selected = joined.select(['id', 'features'])
    assert set(selected[0]) == {'id', 'features'}
    assert set(joined.select(['id'])[0]) == {'id'}
    assert joined.class_names('kind') == joined.class_names('features') == ()


def test_a_fingerprint_tells_other_values_apart(source):
    same = data.SequenceSource([{**example, 'kind': 7} for example in EXAMPLES])
    other = data.SequenceSource([*EXAMPLES[:3], {**EXAMPLES[3], 'text': 'three'}])
    known = data.fingerprint(source, ['picture', 'text'])
    assert known == data.fingerprint(same, ['picture', 'text'])
    assert known != data.fingerprint(other, ['picture', 'text'])
    assert known == data.fingerprint(source, ['picture', 'text'])


def test_a_prepared_data_set_is_known_by_its_files(tmp_path):
    kwargs = {'builder_kwargs': {'num_train': 3, 'num_validation': 2, 'num_test': 2}, 'data_dir': str(tmp_path)}
    known = data.fingerprint(data.load_source('synthetic', 'train', **kwargs), ['image'])
    assert known['files']
    assert known != data.fingerprint(data.load_source('synthetic', 'test', **kwargs), ['image'])


def test_a_table_is_whole_or_absent(tmp_path, monkeypatch):
    def values():
        yield np.zeros(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.write_side_table(tmp_path / 'table', [0, 1], values(), {})
    assert not any(tmp_path.iterdir())

    # As numpy and array_record tell it.
    for error in (OSError(errno.ENOSPC, 'No space left'), RuntimeError('write failed: No space left on device')):

        def full(*arguments, error=error):
            raise error

        monkeypatch.setattr(side_table.np, 'save', full)
        with pytest.raises(OSError, match='no space left on the device'):
            data.write_side_table(tmp_path / 'table', [0], [np.zeros(2)], {})
        assert not any(tmp_path.iterdir())


def test_a_table_that_another_process_made_in_the_meantime_stays(tmp_path):
    data.write_side_table(tmp_path / 'table', [0], [np.zeros(2)], {'made': 'first'})
    assert data.write_side_table(tmp_path / 'table', [0], [np.ones(2)], {'made': 'second'}).about == {'made': 'first'}
    assert {path.name for path in (tmp_path / 'table').iterdir()} == {VALUES, 'rows.npy', 'about.json'}
    assert [path.name for path in tmp_path.iterdir()] == ['table']
