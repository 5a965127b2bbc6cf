"""The loaders: batches of a plan, loaded by grain in threads or worker processes, with an exact position."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from mmtl_jax.core.types import Batch
from mmtl_jax.data.collate import collate
from mmtl_jax.data.layout import Layout
from mmtl_jax.data.modality_dropout import Drop, make_drop
from mmtl_jax.data.plan import AUGMENT, DROPOUT, EvalPlan, PlannedBatch, TrainPlan
from mmtl_jax.data.prepared import PreparedSource
from mmtl_jax.data.sampling import Sampling

# More batches than any training has; grain wants a length.
ENDLESS = 1 << 40


@dataclasses.dataclass(frozen=True)
class Rows:
    """Random access to planned batches: the source that grain reads.

    Attributes:
      prepared: the sources.
      plan: which rows make which batch.
      layout: the shapes.
      seed: of augmentation and modality dropout; None in evaluation, which has neither.
      drop: which modalities a row goes without, from `make_drop`; None for none.
      process_index: which part of every batch is loaded here.
      process_count: number of parts.
      corrupt: from the number of a row to values that take the place of its own, see `corrupt_input`; in evaluation.
    """

    prepared: tuple[PreparedSource, ...]
    plan: TrainPlan | EvalPlan
    layout: Layout
    seed: int | None = None
    drop: Drop | None = None
    process_index: int = 0
    process_count: int = 1
    corrupt: Callable[[int], Mapping[str, np.ndarray | None]] | None = None

    def __len__(self) -> int:
        return len(self.plan) if isinstance(self.plan, EvalPlan) else ENDLESS

    def __getitem__(self, index: int) -> tuple[np.ndarray, Batch]:
        planned = local_part(self.plan[index], self.process_index, self.process_count)
        rows = [self._row(int(row), int(number)) for row, number in zip(planned.rows, planned.passes, strict=True)]
        fields = [field for source in self.prepared for field in source.preprocess.fields]
        optional = frozenset(field.path for field in fields if field.optional)
        return planned.rows, collate(rows, self.layout, planned.bucket, optional)

    def _row(self, row: int, number: int) -> dict[str, np.ndarray | None] | None:
        """Returns the values of one visit to a row, None for padding or a bad example."""
        if row < 0:
            return None
        source, local = self._locate(row)
        prepared = source.row(local)
        if prepared is None:
            return None
        if self.seed is None:
            values = source.preprocess.visit(prepared, None)
            return values if self.corrupt is None else {**values, **self.corrupt(local)}
        # Every draw is keyed by what it is for, never by the order of calls.
        rng = np.random.default_rng([self.seed, AUGMENT, number, row])
        values = source.preprocess.visit(prepared, rng, source.draw)
        if self.drop is not None:
            present = sorted(name for name in _modalities(values) if values[f'inputs/{name}'] is not None)
            dropped = self.drop(present, np.random.default_rng([self.seed, DROPOUT, number, row]))
            values |= dict.fromkeys(f'inputs/{name}' for name in dropped)
        return values

    def _locate(self, row: int) -> tuple[PreparedSource, int]:
        """Returns the source of a row and its number there."""
        for source in self.prepared:
            if row < len(source):
                return source, row
            row -= len(source)
        raise IndexError(row)


class TrainLoader:
    """An endless iterator over training batches; made by `train_loader`.

    Attributes:
      batches_per_epoch: constant.
      num_bad: rows that this process has handed out, before a resume too, and that stood for bad examples.
    """

    def __init__(self, rows: Rows, options: 'ReadOptions'):
        self._rows = rows
        self._options = options
        self._position = 0
        self._iterator: Iterator | None = None
        self.batches_per_epoch = rows.plan.batches_per_epoch
        self.num_bad = 0

    def __iter__(self) -> 'TrainLoader':
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._options.read(self._rows, self._position)
        _, batch = next(self._iterator)
        self._position += 1
        self.num_bad += int(np.sum(~batch.real))
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position of the next batch, and what came before it, as plain values."""
        return {'position': self._position, 'plan': self._rows.plan.description, 'num_bad': self.num_bad}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues at a position that `get_state` gave.

        Raises:
          ValueError: the position belongs to another plan.
        """
        theirs, ours = state['plan'], self._rows.plan.description
        different = [key for key in ours if theirs.get(key) != ours[key]]
        if different:
            key = different[0]
            raise ValueError(
                f'the saved position belongs to other data: {key} was {theirs.get(key)}, now it is {ours[key]}; '
                'start a new run, or restore the data and the settings of this one.'
            )
        self.close()
        self._position, self.num_bad = int(state['position']), int(state.get('num_bad', 0))

    def close(self) -> None:
        """Stops the threads or processes; the next batch starts them again."""
        _close(self._iterator)
        self._iterator = None


class EvalLoader:
    """Every row of a source once; each `iter` starts a new pass. Made by `eval_loader`."""

    def __init__(self, rows: Rows, options: 'ReadOptions'):
        self._rows = rows
        self._options = options

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[np.ndarray, Batch]]:
        iterator = self._options.read(self._rows, 0)
        try:
            yield from iterator
        finally:
            _close(iterator)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How batches are read ahead.

    Attributes:
      num_threads: threads that build batches, in this process or in each worker; 0 builds them when asked.
      num_workers: worker processes; 0 for none.
      prefetch: batches that are kept ready.
    """

    num_threads: int
    num_workers: int
    prefetch: int

    def __post_init__(self):
        if self.num_threads < 0 or self.num_workers < 0 or self.prefetch < 1:
            raise ValueError(
                'expected num_threads >= 0, num_workers >= 0 and prefetch >= 1, got '
                f'{self.num_threads}, {self.num_workers} and {self.prefetch}.'
            )

    def read(self, rows: Rows, start: int) -> Iterator[tuple[np.ndarray, Batch]]:
        """Returns an iterator over the batches from `start` on."""
        dataset = grain.MapDataset.source(rows)[start:]
        threads = min(self.num_threads, self.prefetch)
        iterable = dataset.to_iter_dataset(grain.ReadOptions(threads, self.prefetch if threads else 0))
        # What is cached here would have to be built again in each worker.
        if self.num_workers and not all(source.cached for source in rows.prepared):
            if not flags.FLAGS.is_parsed():
                # grain hands its command line flags to the workers, also where the program itself has none.
                flags.FLAGS.mark_as_parsed()
            iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(self.num_workers, self.prefetch))
            # A copy of its own, for what a worker hands over lives in shared memory until it is collected.
            iterable = iterable.map(_own)
        return iter(iterable)


def train_loader(
    prepared: PreparedSource | Sequence[PreparedSource],
    *,
    batch_size: int,
    seed: int,
    layout: Layout,
    weights: Sequence[float] | None = None,
    sampling: Sampling | None = None,
    modality_dropout: float | Mapping[str, Any] = 0.0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    num_workers: int = 0,
    prefetch: int = 4,
) -> TrainLoader:
    """Returns an endless iterator over training batches.

    The order is a pure function of `seed` (see `TrainPlan`); every random draw of a visit is keyed by the seed, the
    pass and the row, so neither threads, workers, processes nor a resume change it.

    Args:
      prepared: one source or several that are mixed.
      batch_size: rows of the global batch.
      seed: of order, augmentation and modality dropout.
      layout: the shapes, from `make_layout` on the same sources.
      weights: the shares of several sources; None takes their sizes.
      sampling: how often the rows of rare classes, languages or patterns come; None draws all alike.
      modality_dropout: probability of dropping a modality that is present, for all or by name, or `{'subsets': ...}`;
        see `make_drop`. One is always kept.
      process_index: this process loads the rows `[process_index * n, (process_index + 1) * n)` of each batch, with
        `n = batch_size / process_count`.
      process_count: number of processes.
      num_threads: threads that build batches.
      num_workers: worker processes, for sources that are not cached; cached ones are read in threads.
      prefetch: batches that are kept ready.

    Raises:
      ValueError: fewer rows than a batch, a batch that the processes cannot share, an unknown modality, or nothing to
        sample by.
    """
    sources = _as_tuple(prepared)
    _check_processes(batch_size, process_index, process_count)
    buckets = [layout.assign(source, training=True) for source in sources]
    groups = None if sampling is None else [sampling.groups(source) for source in sources]
    power = 0.0 if sampling is None else sampling.power
    plan = TrainPlan(buckets, batch_size=batch_size, seed=seed, weights=weights, groups=groups, power=power)
    drop = make_drop(modality_dropout, _modalities(layout.fields))
    rows = Rows(sources, plan, layout, seed, drop, process_index, process_count)
    return TrainLoader(rows, ReadOptions(num_threads, num_workers, prefetch))


def eval_loader(
    prepared: PreparedSource,
    *,
    batch_size: int,
    layout: Layout,
    corrupt: Callable[[int], Mapping[str, np.ndarray | None]] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    num_workers: int = 0,
    prefetch: int = 4,
) -> EvalLoader:
    """Returns an iterable over `(row indices [B] int64, Batch)` in which every example comes exactly once.

    Padded rows have the index -1 and `real` False; bad examples that are skipped keep their index, and `real` is False
    too. Nothing is random. `corrupt` gives values that take the place of a row's own, by its number, such as those of
    `corrupt_input`; what is longer than the layout is cut. The other arguments are those of `train_loader`.

    Raises:
      ValueError: a batch that the processes cannot share.
    """
    _check_processes(batch_size, process_index, process_count)
    plan = EvalPlan(layout.assign(prepared, training=False), batch_size=batch_size)
    rows = Rows((prepared,), plan, layout, corrupt=corrupt, process_index=process_index, process_count=process_count)
    return EvalLoader(rows, ReadOptions(num_threads, num_workers, prefetch))


def local_part(planned: PlannedBatch, process_index: int, process_count: int) -> PlannedBatch:
    """Returns the rows of a batch that one process loads."""
    count = len(planned.rows) // process_count
    part = slice(process_index * count, (process_index + 1) * count)
    return PlannedBatch(planned.rows[part], planned.passes[part], planned.bucket)


def _as_tuple(prepared: PreparedSource | Sequence[PreparedSource]) -> tuple[PreparedSource, ...]:
    """Returns the sources as a tuple."""
    return (prepared,) if isinstance(prepared, PreparedSource) else tuple(prepared)


def _check_processes(batch_size: int, process_index: int, process_count: int) -> None:
    """Raises a `ValueError` if the processes cannot share a batch."""
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(f'expected 0 <= process_index < process_count, got {process_index} of {process_count}.')
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f'batch_size {batch_size} must be a multiple of the {process_count} processes.')


def _modalities(paths: Iterable[str]) -> list[str]:
    """Returns the modalities among the paths of fields."""
    return [path.split('/', 1)[1] for path in paths if path.startswith('inputs/')]


def _own(item: tuple[np.ndarray, Batch]) -> tuple[np.ndarray, Batch]:
    """Returns a batch in plain arrays."""
    return jax.tree.map(np.array, item)


def _close(iterator: Any) -> None:
    """Ends what reads ahead."""
    if iterator is not None and hasattr(iterator, 'close'):
        iterator.close()
