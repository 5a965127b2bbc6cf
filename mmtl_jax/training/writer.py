"""`metrics.jsonl`: every number of a run, one JSON object a line, each step of a split once, whatever happens."""

import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from mmtl_jax.core.files import explain_full_disk, plain, write_bytes_atomic
from mmtl_jax.training.conflicts import GRADIENTS

RESERVED = ('step', 'split', 'seconds')


class MetricsWriter:
    """Appends rows to a run's `metrics.jsonl`, and mirrors them to TensorBoard if asked to.

    A row is `{"step": 100, "split": "train", "seconds": 12.5, "category/loss": 1.9, ...}`. `seconds` counts the time
    in which a writer was open, over all sessions of the run. A value that is not finite is written as null, since JSON
    has no NaN; `read_metrics` returns it as NaN.

    On opening, rows of steps after `resume_step` are dropped, because the run will make them anew, and so is a last
    line that a kill tore. A row that an earlier session wrote stays, and writing it again does nothing: written
    *before* the checkpoint of its step, a row is neither lost nor doubled wherever the run was killed.

    Args:
      path: the file; it and its folder are made when missing.
      resume_step: the step of the checkpoint from which the run goes on; 0 for a new run.
      tensorboard: folder of the mirror, or None for no mirror; needs the extra `tensorboard`.
      clock: returns seconds; replaced in tests.

    Raises:
      ValueError: the file is damaged elsewhere than in its last line, or the extra is missing.
      OSError: the file cannot be written; a full disk is told in one sentence.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_step: int = 0,
        tensorboard: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path = pathlib.Path(path)
        self._board = _open_tensorboard(tensorboard, resume_step) if tensorboard is not None else None
        rows = _keep_until(self._path, resume_step)
        self._earlier = {(row['step'], row['split']) for row in rows}
        self._written: set[tuple[int, str]] = set()
        self._clock = clock
        self._start = clock() - max((row['seconds'] for row in rows), default=0.0)
        with explain_full_disk(self._path):
            self._file = open(self._path, 'ab', buffering=0)  # noqa: SIM115 (closed by `close`)

    @property
    def seconds(self) -> float:
        """Seconds in which this run's writers were open, over all sessions."""
        return self._clock() - self._start

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Appends the row of (`step`, `split`), unless an earlier session did.

        Args:
          step: the number of updates made so far.
          split: 'train', 'validation' or 'test'.
          values: name -> scalar (Python, numpy or JAX).

        Raises:
          ValueError: this session wrote the row already, or a value's name is one of the row's own.
          OSError: the disk is full; the rows written before stay readable.
        """
        key = (int(step), split)
        if key in self._written:
            raise ValueError(f'the row of step {key[0]}, split {split!r} is written already; write each row once.')
        taken = [name for name in values if name in RESERVED]
        if taken:
            raise ValueError(f'a value cannot be named {taken[0]!r}: each row has its own; rename the metric.')
        self._written.add(key)
        if key in self._earlier:
            return
        floats = {name: float(value) for name, value in values.items()}
        row = plain({'step': key[0], 'split': split, 'seconds': round(self.seconds, 3), **floats})
        self._append(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b'\n')
        if self._board is not None:
            for name, value in floats.items():
                # A chart for each pair of tasks would bury the others; the report has them in one picture.
                if not name.startswith(f'{GRADIENTS}/cosine/'):
                    self._board.add_scalar(f'{name}/{split}', value, key[0])
            self._board.flush()

    def _append(self, line: bytes) -> None:
        end = os.fstat(self._file.fileno()).st_size
        with explain_full_disk(self._path):
            try:
                written = self._file.write(line)
                while written < len(line):  # an almost full disk takes a part and refuses the rest
                    written += self._file.write(line[written:])
            except OSError:
                os.ftruncate(self._file.fileno(), end)
                raise

    def close(self) -> None:
        """Closes the file and the mirror; a second call does nothing."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the rows of a `metrics.jsonl`, in their order; null values as NaN.

    A last line that a kill tore is left out.

    Raises:
      ValueError: there is no such file, or a line other than the last is damaged.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_bytes().split(b'\n')
    except FileNotFoundError as error:
        raise ValueError(f'there is no file {path}; is the path right, and did the run start?') from error
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line feed is empty or torn
        try:
            row = json.loads(line)
            rows.append({key: math.nan if row[key] is None else row[key] for key in dict.fromkeys((*RESERVED, *row))})
        except (ValueError, TypeError, KeyError) as error:
            if not any(lines[number:]):
                break
            raise ValueError(
                f'{path}, line {number} is no row of metrics: {line[:60]!r}; take that line out and call again.'
            ) from error
    return rows


def _keep_until(path: pathlib.Path, last_step: int) -> list[dict[str, Any]]:
    """Drops the rows after `last_step` and a torn last line from the file; returns the rows that stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return []
    rows = [row for row in read_metrics(path) if row['step'] <= last_step]
    text = ''.join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + '\n' for row in rows).encode()
    if text != path.read_bytes():
        write_bytes_atomic(path, text)
    return rows


def _open_tensorboard(folder: str | os.PathLike[str], resume_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "the TensorBoard mirror needs tensorboardX: pip install 'mmtl_jax[tensorboard]', or turn the mirror off."
        ) from error
    return SummaryWriter(os.fspath(folder), purge_step=resume_step + 1)
