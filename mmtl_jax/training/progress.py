"""What a person sees while a run goes on: the parameter overview at the start, then a progress bar or log lines."""

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import PyTree


def stderr_console() -> Console:
    """Returns a console on stderr, where progress belongs; results go to stdout."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class Progress:
    """A progress bar on a terminal, a plain line every few seconds elsewhere; a context manager.

    The time left is estimated from the steps since the first update, so that compilation does not count.

    Args:
      total: the step at which the run ends.
      start: the step from which this session goes on.
      every: seconds between two plain lines.
      console: where to write; stderr when None.
      clock: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        every: float = 10.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = stderr_console() if console is None else console
        self._total, self._step, self._every, self._clock = total, start, every, clock
        self._first: tuple[int, float] | None = None
        self._last_line = clock()
        self._last_step_said: int | None = None
        self._losses: Mapping[str, float] = {}
        self._speed: float | None = None
        self._bar = _make_bar(self._console) if self._console.is_terminal else None
        self._task = None if self._bar is None else self._bar.add_task('', total=total, completed=start, text='')

    def update(
        self, step: int, losses: Mapping[str, float] | None = None, examples_per_second: float | None = None
    ) -> None:
        """Shows that `step` updates are made; the last known losses and speed stay when none are given.

        Args:
          step: updates made so far.
          losses: task -> loss.
          examples_per_second: training speed.
        """
        now = self._clock()
        self._step = step
        self._first = self._first or (step, now)
        self._losses = losses if losses is not None else self._losses
        self._speed = examples_per_second if examples_per_second is not None else self._speed
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text())
        elif now - self._last_line >= self._every:
            self._say()

    def log(self, message: str) -> None:
        """Writes a line of its own, above the bar."""
        self._console.print(Text(message), soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Returns the seconds until the last step at the speed so far, None while that is unknown."""
        if self._first is None or self._step <= self._first[0]:
            return None
        seconds_per_step = (self._clock() - self._first[1]) / (self._step - self._first[0])
        return seconds_per_step * max(self._total - self._step, 0)

    def _text(self) -> str:
        left = self.seconds_left()
        parts = [
            ' '.join(f'{task} {_short(loss)}' for task, loss in self._losses.items()),
            '' if self._speed is None else f'{self._speed:,.0f} examples/s',
            '' if left is None else f'{clock_time(left)} left',
        ]
        return ' | '.join(part for part in parts if part)

    def _say(self) -> None:
        percent = 100 * self._step / max(self._total, 1)
        head = f'step {self._step:,}/{self._total:,} ({percent:.0f}%)'
        self.log(' | '.join(part for part in (head, self._text()) if part))
        self._last_line, self._last_step_said = self._clock(), self._step

    def __enter__(self) -> 'Progress':
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._first is not None and self._last_step_said != self._step:
            self._say()


def _make_bar(console: Console) -> RichProgress:
    # Four redraws a second cost nothing that a training step would notice.
    return RichProgress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn('{task.completed:,.0f}/{task.total:,.0f}', markup=False),
        TextColumn('{task.fields[text]}', markup=False),
        console=console,
        refresh_per_second=4,
    )


def _short(value: float) -> str:
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.1e}'


def clock_time(seconds: float) -> str:
    """Returns a duration in seconds as `0:42`, `12:05` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


def parameter_counts(params: PyTree) -> dict[str, int]:
    """Returns the number of parameters of each part of the model.

    The parts are `encoders/<modality>`, `fusion`, `sharing` and `heads/<task>`.
    """
    counts: dict[str, int] = {}
    for path, leaf in flatten_with_paths(params).items():
        counts[_part(path)] = counts.get(_part(path), 0) + leaf.size
    return counts


def _part(path: str) -> str:
    names = path.split('/')
    return '/'.join(names[: 2 if names[0] in ('encoders', 'heads') else 1])


def parameter_overview(params: PyTree, trained: PyTree = None) -> Table:
    """Returns a table of every parameter: path, shape, type and count, with a sum under each part of the model.

    Args:
      params: nested dicts of arrays.
      trained: the part of them that is not frozen, for a column more where something is; None for all.
    """
    trained = params if trained is None else trained
    leaves, trained_leaves = flatten_with_paths(params), flatten_with_paths(trained)
    counts, trained_counts = parameter_counts(params), parameter_counts(trained)
    total, moving = sum(counts.values()), sum(trained_counts.values())
    columns = 4 if moving == total else 5
    title = f'{total:,} parameters' + (f', {moving:,} of them trained' if moving < total else '')
    table = Table(title=title, title_justify='left', show_edge=False, pad_edge=False)
    table.add_column('parameter', overflow='fold')
    for name in ('shape', 'dtype', 'count', 'trained')[: columns - 1]:
        table.add_column(name, justify='right' if name in ('count', 'trained') else 'left')
    for part, number in counts.items():
        for path, leaf in leaves.items():
            if _part(path) == part:
                shape = 'x'.join(map(str, leaf.shape)) or 'scalar'
                size = leaf.size if path in trained_leaves else 0
                table.add_row(*(Text(path), shape, str(leaf.dtype), f'{leaf.size:,}', f'{size:,}')[:columns])
        share, size = f'{number / max(total, 1):.1%}', trained_counts.get(part, 0)
        row = (Text(f'= {part}'), share, '', f'{number:,}', f'{size:,}')
        table.add_row(*row[:columns], style='bold', end_section=True)
    return table
