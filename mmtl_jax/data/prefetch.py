"""Batches on the device ahead of their use, with an exact position."""

import collections
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from mmtl_jax.core.types import Batch


def to_device(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
    """Returns a batch as global arrays; each process gives its own rows.

    Args:
      batch: numpy arrays, the rows of this process.
      sharding: of every array, over the leading axis.
    """
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # one call for all arrays, in half the time
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def prefetch_to_device(iterator: Any, sharding: jax.sharding.Sharding, *, size: int = 2) -> 'DeviceIterator':
    """Returns an iterator over the same items with their batch on the device, `size` items ahead.

    Args:
      iterator: an iterable over `Batch`, or over tuples of which the `Batch` members are moved and the others stay on
        the host. For `get_state` and `set_state` it needs them too.
      sharding: of every array, over the leading axis.
      size: items that are on the device before they are asked for, 0 for none.

    Raises:
      ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f'size must be at least 0, got {size}.')
    return DeviceIterator(iterator, sharding, size)


class DeviceIterator(Iterator):
    """Made by `prefetch_to_device`; its position is that of the next item for the consumer, not of what was read.

    A thread reads and moves the items, so that the consumer waits for none that is there already.
    """

    def __init__(self, iterator: Any, sharding: jax.sharding.Sharding, size: int):
        self._source = iterator
        self._iterator = iter(iterator)
        self._sharding = sharding
        self._size = size
        self._reader = _one_thread()
        self._ahead: collections.deque[Future] = collections.deque()
        self._state: Any = None

    def __next__(self) -> Any:
        if self._state is None and self._has_state:
            self._state = self._source.get_state()
        while len(self._ahead) <= self._size:
            self._ahead.append(self._reader.submit(self._read))
        # What the reading raised, the end of the items among it, is raised here.
        item, self._state = self._ahead.popleft().result()
        return item

    def get_state(self) -> Any:
        """Returns the position of the next item that the consumer gets."""
        return self._source.get_state() if self._state is None else self._state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues at a position that `get_state` gave; what was read ahead is dropped."""
        self._drop()
        self._source.set_state(state)
        self._state = state

    def close(self) -> None:
        """Drops what was read ahead and closes the source."""
        self._drop()
        for opened in (self._iterator, self._source):
            if hasattr(opened, 'close'):
                opened.close()

    @property
    def _has_state(self) -> bool:
        return hasattr(self._source, 'get_state')

    def _drop(self) -> None:
        """Waits until nothing is read any more, and forgets what was."""
        self._reader.shutdown(cancel_futures=True)
        self._reader = _one_thread()
        self._ahead.clear()

    def _read(self) -> tuple[Any, Any]:
        """Returns the next item, on the device, and the position behind it."""
        moved = self._move(next(self._iterator))
        return moved, self._source.get_state() if self._has_state else None

    def _move(self, item: Any) -> Any:
        """Returns an item with its batches on the device."""
        if isinstance(item, Batch):
            return to_device(item, self._sharding)
        if isinstance(item, tuple):
            return tuple(to_device(part, self._sharding) if isinstance(part, Batch) else part for part in item)
        return item


def _one_thread() -> ThreadPoolExecutor:
    """Returns what does one thing after the other; its thread starts with the first."""
    return ThreadPoolExecutor(1, thread_name_prefix='prefetch')
