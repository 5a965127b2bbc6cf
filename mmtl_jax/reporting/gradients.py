"""What the tasks' gradients are to one another over a run: norms, cosines, conflicts, from the rows of `metrics.jsonl`.

A row of training metrics has `<task>/gradient_norm`, `gradients/conflicts` (the share of the pairs of tasks whose
gradients have a negative cosine) and `gradients/cosine/<a>/<b>` for each pair, a before b in the order of the tasks.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmtl_jax.reporting import curves
from mmtl_jax.reporting.cells import draw_cells, name_cells
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, hue, panels, shorten, write

CONFLICTS = f'{curves.GRADIENTS}conflicts'
COSINE = f'{curves.GRADIENTS}cosine/'
NUMBERS_UP_TO = 12  # tasks; with more, the numbers in the cells cannot be read
# The cosine of full colour is the first of these that no mean cosine passes: in most runs they are small.
LIMITS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


def gradient_norm_curves(history: curves.History, tasks: Sequence[str]) -> Figure:
    """Returns one panel with the gradient norm of every task over the steps.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in the order that fixes their colours.
    """
    return curves.task_curves(history, tasks, 'gradient_norm', 'gradient norms')


def conflict_curve(history: curves.History) -> Figure:
    """Returns one panel with the share of the pairs of tasks whose gradients conflict, over the steps."""
    steps, values = curves.series(history, 'train', CONFLICTS)
    lines = [curves.Line('all pairs', steps, values, hue(0), noisy=len(steps) > 20)] if len(steps) else []
    return curves.wide_figure(curves.Panel('share of conflicting pairs', lines))


def cosines(history: curves.History, tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (mean cosine, share of the rows in which it is negative) of each pair over a run.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: `T` names, in their order.

    Returns:
      Two symmetric `[T, T]`; NaN on the diagonal and for a pair that was never measured.
    """
    first, second = np.triu_indices(len(tasks), 1)
    names = [f'{COSINE}{tasks[a]}/{tasks[b]}' for a, b in zip(first, second, strict=True)]
    rows = [[row.get(name, np.nan) for name in names] for row in history if row['split'] == 'train']
    values = np.array(rows, np.float64).reshape(len(rows), len(names))
    known = np.isfinite(values)
    counts = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    mean, share = np.full((2, len(tasks), len(tasks)), np.nan)
    for matrix, summed in ((mean, np.where(known, values, 0.0)), (share, values < 0)):
        matrix[first, second] = matrix[second, first] = summed.sum(axis=0) / counts
    return mean, share


def balancing_figures(history: curves.History, tasks: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Yields (file name, figure) of the weights, gradient norms and conflicts that a run recorded.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in their order.
    """
    names = set(curves.names_in(history))
    if any(f'{task}/weight' in names for task in tasks):
        yield 'weights', curves.weight_curves(history, tasks)
    if any(f'{task}/gradient_norm' in names for task in tasks):
        yield 'gradient_norms', gradient_norm_curves(history, tasks)
    if any(name.startswith(COSINE) for name in names):
        yield 'conflicts', conflict_heat_map(history, tasks)
    if CONFLICTS in names:
        yield 'conflicts_over_time', conflict_curve(history)


def conflict_heat_map(history: curves.History, tasks: Sequence[str], title: str = 'gradient conflicts') -> Figure:
    """Returns a matrix of the tasks that shows which of them pull the parameters apart.

    Below the diagonal stands the mean cosine of a pair's gradients over the run, above it the share of the rows of
    `metrics.jsonl` in which that cosine is negative. Red: they conflict; blue: they agree; grey: neither, a cosine of 0
    or as many conflicts as agreements. A pair that was never measured together has no cell.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in their order; with more than 12, the cells have no numbers.
      title: over the picture.
    """
    size = len(tasks)
    mean, share = cosines(history, tasks)
    largest = np.max(np.abs(mean), initial=0.0, where=np.isfinite(mean))
    limit = next(limit for limit in LIMITS if largest <= limit or limit == LIMITS[-1])
    below = np.tri(size, k=-1, dtype=bool)
    agreement = np.where(below, mean / limit, 1 - 2 * share)
    side = min(max((0.5 if size <= NUMBERS_UP_TO else 0.22) * size, 1.8), 9.0)
    figure, (axes,) = panels(1, columns=1, width=side + 2.4, height=side + 1.5)
    _draw_agreement(axes, agreement)
    if size <= NUMBERS_UP_TO:
        decimals = 2 if limit > 0.1 else 3
        for row, column in np.argwhere(np.isfinite(agreement)):
            number = f'{mean[row, column]:z.{decimals}f}' if below[row, column] else f'{share[row, column]:.0%}'
            colour = '#ffffff' if abs(agreement[row, column]) > 0.75 else LIGHT['ink']
            write(axes, column, row, number, color=colour, ha='center', va='center')
    name_cells(axes, [shorten(task, 18) for task in tasks], title)
    _draw_key(axes, side, limit)
    return figure


def _draw_agreement(axes: Axes, agreement: np.ndarray) -> None:
    """Draws cells of -1 (conflict) to 1 (agreement): a hue of that opacity over grey, for light and dark pages."""
    rows, columns = np.nonzero(np.isfinite(agreement))
    for colours in (LIGHT['grid'], _colours(agreement[rows, columns])):
        draw_cells(axes, len(agreement), rows, columns, colours)


def _colours(agreement: np.ndarray) -> np.ndarray:
    """Returns the colours `[n, 4]` of values `[n]` from -1 to 1."""
    conflict, agree = to_rgb(LIGHT['hue-4']), to_rgb(LIGHT['hue-0'])
    opacity = np.clip(np.abs(agreement), 0.0, 1.0)[:, None]
    return np.concatenate([np.where(agreement[:, None] < 0, conflict, agree), opacity], axis=1)


def _draw_key(axes: Axes, side: float, limit: float) -> None:
    """Draws what the colours mean to the right of a matrix of `side` inches, and says below where what stands."""
    height = min(1.6 / side, 0.9)
    key = axes.inset_axes((1 + 0.2 / side, 0.9 - height, 0.14 / side, height))
    key.set_axis_off()
    values = np.linspace(-1, 1, 41)
    for colours in (LIGHT['grid'], _colours(values)):
        key.barh(values, 1.0, values[1] - values[0], color=colours, linewidth=0)
    key.set(xlim=(-0.5, 0.5), ylim=(-1, 1))
    write(key, -0.5, 1.28, 'cosine · negative', va='center')
    for place, words in ((1, f'{limit:g} · 0%'), (0, '0 · 50%'), (-1, f'{-limit:g} · 100%')):
        write(key, 1.0, place, words, va='center')
    axes.set_xlabel(
        'below the diagonal: mean cosine\nabove: how often it is negative', fontsize=FONT_SIZE - 1, color=LIGHT['muted']
    )
