"""Batches on the device: sharding, and the position of the consumer rather than of the reader."""

import threading

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmtl_jax import data


@pytest.fixture(scope='module')
def sharding():
    mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec('data'))


def loader(prepared, **options):
    return data.train_loader(prepared.rows, batch_size=8, seed=3, layout=prepared.layout, **options)


def equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize('size', [0, 1, 3])
def test_the_position_is_the_consumers(size, prepared, sharding):
    plain = loader(prepared)
    expected = [next(plain) for _ in range(8)]
    ahead = data.prefetch_to_device(loader(prepared), sharding, size=size)
    assert ahead.get_state()['position'] == 0
    for number in range(4):
        equal(next(ahead), expected[number])
        assert ahead.get_state()['position'] == number + 1
    state = ahead.get_state()
    fresh = data.prefetch_to_device(loader(prepared), sharding, size=size)
    fresh.set_state(state)
    assert fresh.get_state() == state
    for number in range(4, 8):
        equal(next(fresh), expected[number])
    # Going back drops what was read ahead.
    fresh.set_state(state)
    equal(next(fresh), expected[4])
    for iterator in (plain, ahead, fresh):
        iterator.close()


def test_arrays_are_spread_over_the_devices(prepared, sharding):
    ahead = data.prefetch_to_device(loader(prepared), sharding)
    batch = next(ahead)
    for leaf in jax.tree.leaves(batch):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
        assert leaf.addressable_shards[0].data.shape[0] == 1
    ahead.close()


def test_evaluation_keeps_row_indices_on_the_host_and_ends(prepared, sharding):
    batches = data.eval_loader(prepared.validation, batch_size=8, layout=prepared.layout)
    moved = list(data.prefetch_to_device(batches, sharding))
    assert len(moved) == len(batches)
    for (rows, batch), (expected_rows, expected) in zip(moved, batches, strict=True):
        assert isinstance(rows, np.ndarray)
        assert isinstance(batch.real, jax.Array)
        np.testing.assert_array_equal(rows, expected_rows)
        equal(batch, expected)


class Slow:
    """Three batches of numbers, the next of which waits for `may_go`."""

    def __init__(self):
        self.may_go, self.read = threading.Semaphore(0), 0

    def __iter__(self):
        return self

    def __next__(self):
        assert self.may_go.acquire(timeout=60)
        if self.read == 3:
            raise StopIteration
        self.read += 1
        return self.read


def test_the_consumer_waits_for_no_item_that_is_there_already(sharding):
    source = Slow()
    ahead = data.prefetch_to_device(source, sharding, size=2)
    source.may_go.release(2)
    assert next(ahead) == 1
    # The third is not ready, and the second is not kept back for it.
    assert next(ahead) == 2
    source.may_go.release(4)
    assert list(ahead) == [3]
    ahead.close()


def test_what_goes_wrong_while_reading_is_told_at_its_place(sharding):
    def numbers():
        yield 1
        raise OSError('the file ends too early')

    ahead = data.prefetch_to_device(numbers(), sharding)
    assert next(ahead) == 1
    with pytest.raises(OSError, match='ends too early'):
        next(ahead)
    ahead.close()


@pytest.mark.slow  # Starting two processes that import JAX takes seconds.
def test_worker_processes_start_from_the_thread_that_reads(prepared, sharding):
    rows = data.prepare(prepared.source, prepared.preprocess, cache_bytes=0)
    workers = data.train_loader(rows, batch_size=8, seed=3, layout=prepared.layout, num_workers=2)
    plain, ahead = loader(prepared), data.prefetch_to_device(workers, sharding)
    for _ in range(4):
        equal(next(ahead), next(plain))
    for iterator in (plain, ahead):
        iterator.close()


def test_size_is_checked(prepared, sharding):
    with pytest.raises(ValueError, match='size must be at least 0, got -1'):
        data.prefetch_to_device(loader(prepared), sharding, size=-1)
