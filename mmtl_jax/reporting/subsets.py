"""What a model does with each subset of its modalities, and what each modality is worth, as pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmtl_jax.reporting.curves import Primaries, direction
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, clean, dress, hue, panels, shorten, write

ROW, CELL, DOT = 0.27, 1.15, 0.62  # inches: height of a row, widths of a task's and of a modality's column
SURE = 0.7  # from this share of the range on, a cell is dark enough for white numbers


def subset_table(
    scores: Mapping[Sequence[str], Mapping[str, float]],
    modalities: Sequence[str],
    primaries: Primaries,
    title: str = '',
) -> Figure:
    """Returns a table with a row for each subset: a point for each modality in it, each task's primary metric.

    A task's cells go from pale, its worst subset, to full, its best.

    Args:
      scores: subset -> task -> value, in the order of the rows; a task that cannot be answered from a subset is left
        out there.
      modalities: in the order of their columns.
      primaries: task -> (primary metric, higher is better), in the order of the columns.
      title: over the picture.
    """
    tasks = [task for task in primaries if any(task in row for row in scores.values())]
    width, height = DOT * len(modalities) + CELL * len(tasks) + 0.4, ROW * len(scores) + 1.25
    figure, (axes,) = panels(1, columns=1, width=max(width, 3.2), height=height)
    places = {name: DOT * index for index, name in enumerate(modalities)}
    left = DOT * len(modalities) + (CELL - DOT) / 2
    places |= {('task', task): left + CELL * index for index, task in enumerate(tasks)}
    for row, subset in enumerate(scores):
        _draw_subset(axes, row, [(places[name], name in subset) for name in modalities])
    for task in tasks:
        _draw_task(axes, places['task', task], [row.get(task) for row in scores.values()], primaries[task][1])
    for name in modalities:
        write(axes, places[name], -0.75, shorten(name, 16), rotation=40, rotation_mode='anchor', ha='left')
    for task in tasks:
        metric, higher = primaries[task]
        write(axes, places['task', task], -1.35, shorten(task, 18), ha='center', color=LIGHT['ink'], fontweight='bold')
        words = f'{metric.replace("_", " ")} {"↑" if higher else "↓"}'
        write(axes, places['task', task], -0.8, words, ha='center', color=LIGHT['muted'], fontsize=FONT_SIZE - 1.5)
    axes.set(xlim=(-DOT / 2, left + CELL * (len(tasks) - 0.5)), ylim=(len(scores) - 0.4, -2.6))
    axes.set_axis_off()
    axes.set_title(
        clean(title), loc='left', fontsize=FONT_SIZE + 1, color=LIGHT['ink'], fontweight='bold', parse_math=False
    )
    return figure


def _draw_subset(axes: Axes, row: int, points: Sequence[tuple[float, bool]]) -> None:
    """Draws the modalities of a subset as points joined by a line, the others pale."""
    inside = [place for place, present in points if present]
    if inside:
        axes.plot([inside[0], inside[-1]], [row, row], color=LIGHT['ink-2'], linewidth=1.4, zorder=1)
    for place, present in points:
        colour = LIGHT['ink-2'] if present else LIGHT['grid']
        axes.plot(place, row, 'o', color=colour, markersize=6.5, markeredgewidth=0, zorder=2)


def _draw_task(axes: Axes, place: float, values: Sequence[float | None], higher_is_better: bool) -> None:
    """Draws a column of cells `[rows]` around `place`."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    for row, value in enumerate(values):
        if value is None or not np.isfinite(value):
            write(axes, place, row, '·', color=LIGHT['muted'], ha='center', va='center')
            continue
        best, span = (high if higher_is_better else low), high - low
        share = 1 - abs(value - best) / span if span else 1.0
        box = FancyBboxPatch(
            (place - CELL / 2 + 0.03, row - 0.45),
            CELL - 0.06,
            0.9,
            boxstyle='square,pad=0',
            facecolor=to_rgba(LIGHT['hue-0'], 0.08 + 0.92 * share),
            linewidth=0,
        )
        axes.add_patch(box)
        colour = '#ffffff' if share > SURE else LIGHT['ink']
        write(axes, place, row, f'{value:z.3f}', color=colour, ha='center', va='center')


def shapley_bars(
    worth: Mapping[str, Mapping[str, float]], modalities: Sequence[str], primaries: Primaries, columns: int = 3
) -> Figure:
    """Returns one panel per task with the Shapley value of each modality; to the right it makes the task better.

    Args:
      worth: task -> modality -> Shapley value of the primary metric, above 0 for the better.
      modalities: in their order from the top.
      primaries: task -> (primary metric, higher is better).
      columns: panels side by side.
    """
    figure, all_axes = panels(len(worth), columns=columns, width=3.3, height=0.75 + 0.26 * len(modalities))
    for axes, (task, values) in zip(all_axes, worth.items(), strict=True):
        metric, higher = primaries[task]
        dress(axes, f'{task} · {metric.replace("_", " ")}', '' if higher else direction(higher))
        axes.grid(visible=False)
        heights = [values[name] for name in modalities]
        axes.barh(range(len(modalities)), heights, height=0.62, color=[hue(i) for i in range(len(modalities))])
        axes.axvline(0.0, color=LIGHT['axis'], linewidth=0.8)
        _fit(axes, heights)
        for row, value in enumerate(heights):
            write(axes, value, row, f' {value:+z.3f} ', va='center', ha='left' if value >= 0 else 'right')
        axes.set_yticks(range(len(modalities)), [shorten(name, 16) for name in modalities], parse_math=False)
        axes.set_ylim(len(modalities) - 0.4, -0.6)
        axes.set_xlabel('Shapley value', fontsize=FONT_SIZE - 1, color=LIGHT['muted'], labelpad=1)
    return figure


def _fit(axes: Axes, values: Sequence[float]) -> None:
    """Leaves room for a number at the end of each bar."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.28 * (high - low) or 1.0
    axes.set_xlim(low - (room if low < 0 else 0.0), high + room)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
