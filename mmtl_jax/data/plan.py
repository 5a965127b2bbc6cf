"""The batch plan: which rows make batch `i`, as a pure function of the seed and `i`."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence

import numpy as np

# Domains of the random streams, so that no two purposes ever share one.
ORDER, DRAW, AUGMENT, DROPOUT = range(4)


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


class TrainPlan:
    """An endless plan with the same number of batches in every epoch.

    Each epoch draws a fixed number of rows from every source, in the proportion of the weights; a source is gone
    through completely, in a new order each time, before a row of it comes again. The rows of an epoch are shuffled
    together, as many as do not fill a batch are left out (others in each epoch), and batches are cut inside the length
    buckets; what remains of a bucket moves up into the next longer one. The batches are then shuffled.

    Attributes:
      batch_size: rows of a batch.
      batches_per_epoch: constant.
    """

    def __init__(
        self, buckets: Sequence[np.ndarray], *, batch_size: int, seed: int, weights: Sequence[float] | None = None
    ):
        """Makes a plan.

        Args:
          buckets: for each source the bucket of every row.
          batch_size: rows of a batch.
          seed: another seed is another order.
          weights: for each source its share of the rows of an epoch; None takes the sizes, so that every row comes
            once an epoch.

        Raises:
          ValueError: there are fewer rows than a batch holds, or the weights are not positive numbers.
        """
        self._sizes = [len(bucket) for bucket in buckets]
        self._buckets = np.concatenate(buckets)
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)])
        self._seed = seed
        self.batch_size = batch_size
        total = sum(self._sizes)
        if batch_size < 1 or total < batch_size:
            raise ValueError(
                f'training has {total} rows, fewer than the batch size {batch_size}; give a smaller batch.'
            )
        self._shares = shares(total, self._sizes if weights is None else weights, len(buckets))
        self.batches_per_epoch = total // batch_size

    @property
    def description(self) -> dict[str, object]:
        """What two plans must share for a position in one to mean the same in the other."""
        return {
            'seed': self._seed,
            'batch_size': self.batch_size,
            'sizes': self._sizes,
            'rows_per_epoch': self._shares,
            'checksum of the length buckets': zlib.crc32(self._buckets.astype(np.int32).tobytes()),
        }

    def __getitem__(self, index: int) -> PlannedBatch:
        epoch, place = divmod(int(index), self.batches_per_epoch)
        return self._epoch(epoch)[place]

    # Two epochs meet where one ends; more are never in use at once.
    @functools.lru_cache(maxsize=3)  # noqa: B019
    def _epoch(self, epoch: int) -> list[PlannedBatch]:
        """Returns all batches of an epoch."""
        draws = [self._draw(source, epoch * share, share) for source, share in enumerate(self._shares)]
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

    def _draw(self, source: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and passes at the places `start : start + count` of a source's endless shuffled stream."""
        size = self._sizes[source]
        places = np.arange(start, start + count)
        passes = places // size
        rows = np.empty(count, np.int64)
        for number in np.unique(passes):
            chosen = passes == number
            order = np.random.default_rng([self._seed, DRAW, source, int(number)]).permutation(size)
            rows[chosen] = order[places[chosen] % size]
        return rows + self._offsets[source], passes


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
