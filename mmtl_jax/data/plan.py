"""The batch plan: which rows make batch `i`, as a pure function of the seed and `i`."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence

import numpy as np

# Domains of the random streams, so that no two purposes ever share one.
ORDER, DRAW, AUGMENT, DROPOUT, SAMPLE, COUNT = range(6)


@dataclasses.dataclass(frozen=True)
class PlannedBatch:
    """The rows of one batch.

    Attributes:
      rows: `[B]` int64, counted through all sources; -1 is padding.
      passes: `[B]` int64, how often the row's source had been gone through before; keys the random draws of a visit.
      bucket: the length bucket that all rows fit in.
    """

    rows: np.ndarray
    passes: np.ndarray
    bucket: int


@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows that are drawn in an endless order: all of them, shuffled, before one comes again.

    Attributes:
      rows: their numbers through all sources.
      mean: how many an epoch draws in the mean over the epochs.
      key: of its random numbers.
    """

    rows: np.ndarray
    mean: float
    key: tuple[int, ...]

    @property
    def stride(self) -> int:
        """The most draws of an epoch, by which its place in the stream moves on."""
        return int(np.ceil(round(self.mean, DIGITS)))


# Of a number of draws; rounding must not make one more or less of it.
DIGITS = 6


class TrainPlan:
    """An endless plan with the same number of batches in every epoch.

    Each epoch draws a fixed number of rows from every source, in the proportion of the weights; a source is gone
    through completely, in a new order each time, before a row of it comes again. The rows of an epoch are shuffled
    together, as many as do not fill a batch are left out (others in each epoch), and batches are cut inside the length
    buckets; what remains of a bucket moves up into the next longer one. The batches are then shuffled.

    With groups, each group of a source is gone through like that by itself, and has a share of the source's rows. If
    that is no whole number of rows an epoch, it has one more in some epochs, drawn so that the mean is exact, and
    passes over one of its rows in the others.

    Attributes:
      batch_size: rows of a batch.
      batches_per_epoch: constant.
    """

    def __init__(
        self,
        buckets: Sequence[np.ndarray],
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        groups: Sequence[np.ndarray] | None = None,
        power: float = 0.0,
    ):
        """Makes a plan.

        Args:
          buckets: for each source the bucket of every row.
          batch_size: rows of a batch.
          seed: another seed is another order.
          weights: for each source its share of the rows of an epoch; None takes the sizes, so that every row comes
            once an epoch.
          groups: for each source the group of every row; None draws all rows alike.
          power: a group of n rows has a share in proportion to n^(1 - power) of its source's rows.

        Raises:
          ValueError: there are fewer rows than a batch holds, or the weights are not positive numbers.
        """
        self._sizes = [len(bucket) for bucket in buckets]
        self._buckets = np.concatenate(buckets)
        self._seed = seed
        self.batch_size = batch_size
        total = sum(self._sizes)
        if batch_size < 1 or total < batch_size:
            raise ValueError(
                f'training has {total} rows, fewer than the batch size {batch_size}; give a smaller batch.'
            )
        self._shares = shares(total, self._sizes if weights is None else weights, len(buckets))
        self.batches_per_epoch = total // batch_size
        self._sampling = None if groups is None else [power, zlib.crc32(np.concatenate(groups).astype('<i8').tobytes())]
        offsets = np.cumsum([0, *self._sizes[:-1]])
        self._streams = [
            [Stream(np.arange(size) + offset, share, (DRAW, source))]
            if groups is None
            else group_streams(groups[source], power, offset, share, (SAMPLE, source))
            for source, (size, offset, share) in enumerate(zip(self._sizes, offsets, self._shares, strict=True))
        ]

    @property
    def description(self) -> dict[str, object]:
        """What two plans must share for a position in one to mean the same in the other."""
        return {
            'seed': self._seed,
            'batch_size': self.batch_size,
            'sizes': self._sizes,
            'rows_per_epoch': self._shares,
            'checksum of the length buckets': zlib.crc32(self._buckets.astype(np.int32).tobytes()),
            'power and checksum of the sampled groups': self._sampling,
        }

    def __getitem__(self, index: int) -> PlannedBatch:
        epoch, place = divmod(int(index), self.batches_per_epoch)
        return self._epoch(epoch)[place]

    # Two epochs meet where one ends; more are never in use at once.
    @functools.lru_cache(maxsize=3)  # noqa: B019
    def _epoch(self, epoch: int) -> list[PlannedBatch]:
        """Returns all batches of an epoch."""
        draws = [
            self._draw(stream, epoch * stream.stride, count)
            for source, streams in enumerate(self._streams)
            for stream, count in zip(streams, self._counts(streams, source, epoch), strict=True)
        ]
        rows, passes = (np.concatenate(parts) for parts in zip(*draws, strict=True))
        rng = np.random.default_rng([self._seed, ORDER, epoch])
        order = rng.permutation(len(rows))[: self.batches_per_epoch * self.batch_size]
        rows, passes = rows[order], passes[order]
        batches, waiting = [], np.zeros(0, np.int64)
        buckets = self._buckets[rows]
        for bucket in np.unique(buckets):
            waiting = np.concatenate([waiting, np.flatnonzero(buckets == bucket)])
            full = len(waiting) // self.batch_size * self.batch_size
            for start in range(0, full, self.batch_size):
                chosen = waiting[start : start + self.batch_size]
                batches.append(PlannedBatch(rows[chosen], passes[chosen], int(bucket)))
            waiting = waiting[full:]
        return [batches[place] for place in rng.permutation(len(batches))]

    def _counts(self, streams: Sequence[Stream], source: int, epoch: int) -> list[int]:
        """Returns how many rows each stream of a source gives in an epoch: its mean, rounded up or down at random.

        One number moves the boundaries of all (systematic sampling), so that the source has its rows in every epoch.
        """
        ends = np.round(np.cumsum([stream.mean for stream in streams]), DIGITS)
        start = np.random.default_rng([self._seed, COUNT, source, epoch]).random()
        return np.diff(np.floor(ends + start).astype(int), prepend=0).tolist()

    def _draw(self, stream: Stream, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and passes at the places `start : start + count` of a stream."""
        size = len(stream.rows)
        places = np.arange(start, start + count)
        passes = places // size
        rows = np.empty(count, np.int64)
        for number in np.unique(passes):
            chosen = passes == number
            order = np.random.default_rng([self._seed, *stream.key, int(number)]).permutation(size)
            rows[chosen] = stream.rows[order[places[chosen] % size]]
        return rows, passes


class EvalPlan:
    """Every row exactly once, in order of the length buckets; the last batch of each bucket is filled with padding."""

    def __init__(self, buckets: np.ndarray, *, batch_size: int):
        """Makes a plan from the bucket of every row."""
        self._batches = []
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            rows = np.concatenate([rows, np.full(-len(rows) % batch_size, -1)])
            for chosen in rows.reshape(-1, batch_size):
                self._batches.append(PlannedBatch(chosen, np.zeros(batch_size, np.int64), int(bucket)))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> PlannedBatch:
        return self._batches[int(index)]


def group_streams(groups: np.ndarray, power: float, offset: int, share: int, key: tuple[int, ...]) -> list[Stream]:
    """Returns a stream for each group of a source, with means in proportion to its size^(1 - power).

    Args:
      groups: the group of every row.
      power: 0 as they come, 1 all groups alike.
      offset: number of the source's first row.
      share: rows that the source gives in an epoch.
      key: of the source's random numbers.
    """
    names, counts = np.unique(groups, return_counts=True)
    weights = counts.astype(np.float64) ** (1.0 - power)
    means = share * weights / weights.sum()
    return [
        Stream(np.flatnonzero(groups == name) + offset, mean, (*key, number))
        for number, (name, mean) in enumerate(zip(names, means, strict=True))
    ]


def shares(total: int, weights: Sequence[float], num_sources: int) -> list[int]:
    """Returns how many of `total` rows each source gives, proportional to its weight (largest remainders first).

    Raises:
      ValueError: not one positive weight for each source.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (num_sources,) or not np.isfinite(weights).all() or (weights <= 0).any():
        raise ValueError(
            f'weights must be {num_sources} positive numbers, one for each source, got {weights.tolist()}.'
        )
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind='stable')[: total - counts.sum()]] += 1
    return counts.tolist()
