"""A source whose deterministic steps run once per example, cached in memory where that fits."""

import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from mmtl_jax.data.preprocess import Preprocess, Row
from mmtl_jax.data.sources import Source, example_id, id_key

SAMPLE = 32
TRIES = 100


@dataclasses.dataclass
class FieldInfo:
    """What is known of one field over all rows.

    Attributes:
      lengths: `[rows]` int32, the first dimension of each value; 0 where it is missing or a single number.
      examples: (shape without the first dimension, number of dimensions, dtype) -> id of an example that has it.
      shapes: whole shape -> id of an example, for arrays of a fixed shape.
    """

    lengths: np.ndarray
    kinds: dict[tuple, str] = dataclasses.field(default_factory=dict)
    shapes: dict[tuple, str] = dataclasses.field(default_factory=dict)


class PreparedSource:
    """Rows ready to be batched; made by `prepare`.

    Attributes:
      source: where the examples come from, with every key.
      preprocess: what happens to them.
      bad: row -> why it cannot be used, for the rows met so far; only with `bad_examples='skip'`.
      seconds: how long preparing took.
      num_bytes: size of the cache.
    """

    def __init__(self, source: Source, preprocess: Preprocess, bad_examples: str, num_threads: int):
        self.source = source
        self.preprocess = preprocess
        self.bad: dict[int, str] = {}
        self.seconds = 0.0
        self.num_bytes = 0
        self._selected = source.select(preprocess.keys_to_read(source))
        self._bad_examples = bad_examples
        self._num_threads = num_threads
        self._cache: list[Row | None] | None = None
        self._info: dict[str, FieldInfo] = {}
        self._scanned = False

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes read for themselves.
        return {**self.__dict__, '_cache': None}

    @property
    def cached(self) -> bool:
        """Whether the prepared rows are in memory."""
        return self._cache is not None

    def example_id(self, index: int) -> str:
        """Returns the name of a row: the example's `id` or file name, or its split and number."""
        return example_id(self._ids[int(index)], self.source, int(index))

    @functools.cached_property
    def _ids(self) -> Any:
        key = id_key(self.source.keys)
        return self.source.select([key]) if key else [{}] * len(self)

    def row(self, index: int) -> Row | None:
        """Returns a prepared example, None for a bad one.

        Raises:
          ValueError: the example is bad and `bad_examples` is 'error'; the sentence names it.
        """
        if self._cache is not None:
            return self._cache[index]
        return self._load(index)[0]

    def draw(self, rng: np.random.Generator) -> Row:
        """Returns a prepared example drawn at random among those that can be used.

        Raises:
          ValueError: hardly any can.
        """
        for _ in range(TRIES):
            row = self.row(int(rng.integers(len(self))))
            if row is not None:
                return row
        raise ValueError(f'{self.source.name!r}: {TRIES} examples drawn at random are all bad; mend the data.')

    def info(self, *, lengths: bool) -> Mapping[str, FieldInfo]:
        """Returns what is known of every field.

        Args:
          lengths: the lengths of all rows are needed, not only the shapes; reads every example once, if that has not
            been done.
        """
        if lengths and not self._scanned:
            logging.info('%s (%s): reading all examples once for their lengths.', self.source.name, self.source.split)
            self._fill(range(len(self)), keep=False)
        return self._info

    def _load(self, index: int) -> tuple[Row | None, dict[str, np.ndarray | None], str]:
        """Returns the prepared row, its values by path, and its name."""
        name = None
        try:
            example = self._read(index)
            name = example_id(example, self.source, index)
            row = self.preprocess.prepare(example)
            values = self.preprocess.visit(row, None)
            self.preprocess.check(values)
        except ValueError as error:
            name = name or self._name(index)
            message = f'{self.source.name!r}, example {name!r}: {error}'
            if self._bad_examples == 'error':
                raise ValueError(
                    f"{message}. Mend the data, or skip such examples with bad_examples='skip'."
                ) from error
            if index not in self.bad:
                self.bad[index] = message
                logging.warning('skipped: %s', message)
            return None, {}, name
        return row, values, name

    def _name(self, index: int) -> str:
        """Returns the name of a row that cannot be read as a whole: of its name alone, if that can."""
        try:
            return self.example_id(index)
        except Exception:
            return f'{self.source.split}[{index}]'

    def _read(self, index: int) -> Mapping[str, Any]:
        """Returns an example of the source."""
        try:
            return self._selected[index]
        except Exception as error:
            raise ValueError(f'cannot be read: {type(error).__name__}: {error}') from error

    def _fill(self, indices: Iterable[int], *, keep: bool, progress: Callable[[int, int], None] | None = None) -> None:
        """Runs the steps over `indices`, keeps the rows if asked to, and notes lengths and shapes."""
        indices = list(indices)
        info = {field.path: FieldInfo(np.zeros(len(self), np.int32)) for field in self.preprocess.fields}
        rows: list[Row | None] = [None] * len(self) if keep else []
        size = 0
        with concurrent.futures.ThreadPoolExecutor(self._num_threads) as pool:
            for done, (index, loaded) in enumerate(zip(indices, pool.map(self._load, indices), strict=True), 1):
                row, values, name = loaded
                size += row_bytes(row)
                if keep:
                    rows[index] = row
                for path, value in values.items():
                    _note(info[path], index, value, name)
                if progress is not None and (done % 64 == 0 or done == len(indices)):
                    progress(done, len(indices))
        self._info, self._scanned = info, len(indices) == len(self)
        self.num_bytes = size
        if keep:
            self._cache = rows


def prepare(
    source: Source,
    preprocess: Preprocess,
    *,
    cache_bytes: int = 2 << 30,
    num_threads: int = 2,
    bad_examples: str = 'error',
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSource:
    """Runs the deterministic steps of `preprocess` over a source, once per example.

    The size of the whole is estimated from 32 examples. If it is at most `cache_bytes`, every row is prepared now, in
    `num_threads` threads, and kept. Otherwise nothing is kept: every visit decodes and prepares the example again,
    which is slower, and worker processes are then worth their start (`num_workers` of the loaders).

    Args:
      source: the examples.
      preprocess: what happens to them.
      cache_bytes: the memory that the cache may take, 0 for no cache.
      num_threads: threads that fill the cache.
      bad_examples: 'error' stops at an example that cannot be used (unreadable, NaN, a label out of range); 'skip'
        marks its row as not real and notes it in `PreparedSource.bad`.
      progress: called with (examples done, examples in all) while the cache is filled.

    Raises:
      ValueError: a transform reads a key that does not exist, or an example is bad; the sentence names it.
    """
    if bad_examples not in ('error', 'skip'):
        raise ValueError(f"bad_examples is 'error' or 'skip', got {bad_examples!r}.")
    if num_threads < 1:
        raise ValueError(f'num_threads must be at least 1, got {num_threads}.')
    start = time.perf_counter()
    preprocess.check_keys(source)
    prepared = PreparedSource(source, preprocess, bad_examples, num_threads)
    sample = np.unique(np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(int)).tolist()
    prepared._fill(sample, keep=False)
    estimate = prepared.num_bytes / len(sample) * len(source)
    if estimate <= cache_bytes:
        prepared._fill(range(len(source)), keep=True, progress=progress)
    else:
        prepared.num_bytes = 0
        logging.info(
            '%s (%s): about %.0f MiB, more than the cache of %.0f MiB; every visit prepares its example again.',
            source.name, source.split, estimate / 2**20, cache_bytes / 2**20,
        )  # fmt: skip
    prepared.seconds = time.perf_counter() - start
    return prepared


def row_bytes(row: Row | None) -> int:
    """Returns about how much memory a row takes."""
    if row is None:
        return 64
    return 256 + sum(
        128 + (value.nbytes if isinstance(value, np.ndarray) else len(str(value))) for value in row.values()
    )


def _note(info: FieldInfo, index: int, value: np.ndarray | None, name: str) -> None:
    """Adds one value to what is known of its field."""
    if value is None:
        return
    info.lengths[index] = value.shape[0] if value.ndim else 0
    info.kinds.setdefault((value.shape[1:], value.ndim, value.dtype.name), name)
    if len(info.shapes) < 2:
        info.shapes.setdefault(value.shape, name)
