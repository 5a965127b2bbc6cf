"""Performance over the level of a corruption, as curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from mmtl_jax.reporting.curves import (
    HEIGHT,
    WIDTH,
    Line,
    Primaries,
    direction,
    draw_line,
    label_ends,
    scale,
)
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, dashes, dress, hue, panels

Curves = Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]


def primary_curves(
    entries: Mapping[str, Mapping[str, Any]], *, baseline: bool = False
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Returns task -> corruption -> (levels, values) of the metrics whose robustness is known.

    Args:
      entries: corruption -> its entry in `robustness-<split>.json`.
      baseline: give the values of the run that this one was compared with, where there was one.
    """
    drawn: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for corruption, entry in entries.items():
        for name, found in entry['robustness'].items():
            values = found.get('baseline') if baseline else entry['values'][name]
            if values is not None:
                drawn.setdefault(name.split('/')[0], {})[corruption] = (entry['levels'], values)
    return drawn


def robustness_curves(
    curves: Curves, primaries: Primaries, *, baseline: Curves | None = None, columns: int = 3
) -> Figure:
    """Returns one panel per task: its primary metric over the level of each corruption.

    Args:
      curves: task -> corruption -> (levels `[n]`, values `[n]`), the first level clean.
      primaries: task -> (primary metric, higher is better), in the order of the panels.
      baseline: the same of a run to compare with; dashed, and moved to the clean value of the run itself, so that the
        area between the two is the effective robustness.
      columns: panels side by side.
    """
    tasks = [task for task in primaries if task in curves]
    names = list(dict.fromkeys(name for by_name in curves.values() for name in by_name))
    figure, all_axes = panels(len(tasks), columns=columns, width=WIDTH * 1.1, height=HEIGHT)
    for axes, task in zip(all_axes, tasks, strict=True):
        metric, higher = primaries[task]
        dress(axes, f'{task} · {metric.replace("_", " ")}', direction(higher))
        lines = [_line(name, names, *curve) for name, curve in curves[task].items()]
        expected = [
            _line(name, names, levels, np.add(values, curves[task][name][1][0] - values[0]))
            for name, (levels, values) in (baseline or {}).get(task, {}).items()
            if name in curves[task]
        ]
        for line in expected:
            axes.plot(line.steps, line.values, color=line.colour, alpha=0.6, linewidth=1.0, linestyle=(0, (3, 2)))
        ends = [draw_line(axes, line) for line in lines]
        scale(axes, [*lines, *expected], may_be_log=False)
        _show_levels(axes)
        label_ends(axes, lines, ends)
    return figure


def _line(name: str, names: Sequence[str], levels: Sequence[float], values: Sequence[float]) -> Line:
    """Returns the line of a corruption, in the look that it has in every panel."""
    index = names.index(name)
    return Line(name, np.array(levels), np.array(values, float), hue(index), style=dashes(index))


def _show_levels(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda level, _: f'{level:g}'))
    axes.set_xlabel('level of corruption', fontsize=FONT_SIZE - 1, color=LIGHT['muted'], labelpad=1)
