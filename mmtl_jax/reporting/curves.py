"""Curves over the steps of a run, from the rows of `metrics.jsonl`.

Train values are noisy: the raw line is pale, the smoothed line lies over it. Validation and test values are few: a line
with points. Lines are labelled where they end; the best step is marked.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mmtl_jax.reporting.style import (
    FONT_SIZE,
    LIGHT,
    NUM_HUES,
    dashes,
    dress,
    hue,
    number,
    panels,
    shorten,
    spread,
    write,
)

History = Sequence[Mapping[str, Any]]
Primaries = Mapping[str, tuple[str, bool]]  # task -> (primary metric, higher is better)
OWN_KEYS = ('step', 'split', 'seconds')
GRADIENTS = 'gradients/'  # what all tasks' gradients are to one another; see gradients.py
MODALITIES = 'modalities/'  # what is recorded of each modality; see modalities.py
NO_METRICS = ('loss', 'weight', 'gradient_norm')  # of a task
CHANCE = '_chance'  # `r5_chance` is what chance reaches of `r5`, and is drawn in its panel
MAX_POINTS = 1200  # of a raw line: more than a screen has pixels makes the file larger, not the picture better
WIDTH, HEIGHT = 4.0, 2.5


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a panel: `steps [n]`, finite `values [n]`, and its look."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    colour: str
    noisy: bool = False
    style: str = '-'


@dataclasses.dataclass(frozen=True)
class Panel:
    """Lines in one pair of axes.

    Attributes:
      title: at the left.
      lines: what is drawn; a panel without lines is not shown.
      note: at the right.
      may_be_log: a logarithmic scale where the values span decades.
      primary: whether it shows a task's primary metric.
    """

    title: str
    lines: Sequence[Line]
    note: str = ''
    may_be_log: bool = False
    primary: bool = False


def series(history: History, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (steps `[n]`, finite values `[n]`) of a value in the rows of a split."""
    rows = [(row['step'], row[name]) for row in history if row['split'] == split and name in row]
    pairs = np.array(rows, dtype=np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs[:, 1])]
    return pairs[:, 0], pairs[:, 1]


def names_in(history: History) -> list[str]:
    """Returns the names of all values in the history, in the order in which they come up."""
    kinds = dict.fromkeys(map(tuple, history))  # lines are many, and with the same names but for a few
    return list(dict.fromkeys(name for kind in kinds for name in kind if name not in OWN_KEYS))


def smooth(values: np.ndarray, span: float) -> np.ndarray:
    """Returns the exponential moving average of `values [n]` over about `span` values, without the start's bias.

    `s_t = sum_i (1 - a)^(t - i) v_i / sum_i (1 - a)^(t - i)` with `a = 2 / (span + 1)`.
    """
    keep = 1 - 2 / (max(span, 1.0) + 1)
    total, weight, smoothed = 0.0, 0.0, np.empty(len(values))
    for index, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        smoothed[index] = total / weight
    return smoothed


def task_lines(history: History, name: str, colour: str, style: str = '-') -> list[Line]:
    """Returns the lines of one value over the splits: train in the task's colour, the others in ink."""
    lines = []
    looks = {
        'train': (colour, True, style),
        'validation': (LIGHT['ink'], False, '-'),
        'test': (LIGHT['muted'], False, '-'),
    }
    for split in dict.fromkeys(['train', 'validation', 'test', *(row['split'] for row in history)]):
        steps, values = series(history, split, name)
        if len(steps):
            line_colour, noisy, line_style = looks.get(split, (LIGHT['muted'], False, ':'))
            lines.append(Line(split, steps, values, line_colour, noisy and len(steps) > 20, line_style))
    return lines


def draw(axes: Axes, panel: Panel, best_step: int | None = None) -> None:
    """Draws a panel into axes: raw and smoothed, scaled, labelled at the lines' ends, the best step marked."""
    dress(axes, panel.title, panel.note)
    lines, ends = panel.lines, []
    for line in lines:
        ends.append(draw_line(axes, line))
    scale(axes, lines, panel.may_be_log)
    if best_step is not None and lines and axes.get_xlim()[0] <= best_step <= axes.get_xlim()[1]:
        _mark_best(axes, lines, best_step)
    label_ends(axes, lines, ends)


def draw_line(axes: Axes, line: Line) -> tuple[float, float]:
    """Draws one line; returns the point at which it ends."""
    values = line.values
    if line.noisy:
        thin = max(1, len(line.steps) // MAX_POINTS)
        axes.plot(line.steps[::thin], values[::thin], color=line.colour, alpha=0.22, linewidth=0.7)
        values = smooth(values, len(values) / 25)
    few = not line.noisy and line.style == '-' and len(line.steps) <= 40
    axes.plot(
        line.steps,
        values,
        color=line.colour,
        linestyle=line.style,
        linewidth=1.6 if line.noisy else 1.3,
        marker='o' if few else None,
        markersize=3.6 if len(line.steps) > 1 else 6,
        markeredgecolor=LIGHT['surface'],
        markeredgewidth=0.6,
        solid_capstyle='round',
    )
    return line.steps[-1], values[-1]


def scale(axes: Axes, lines: Sequence[Line], may_be_log: bool) -> None:
    """Chooses limits that a few wild values cannot blow up, and a logarithmic scale where values span decades."""
    everything = [v for line in lines for v in (line.values, smooth(line.values, len(line.values) / 25))]
    if not everything:
        return
    bounds = [np.percentile(v, [1, 99]) if len(v) > 100 else (v.min(), v.max()) for v in everything]
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    last = max(line.steps[-1] for line in lines)
    first = min(line.steps[0] for line in lines)
    axes.set_xlim(0 if first < 0.15 * last else first, last + max((last - first) * 0.015, 0.5))
    if may_be_log and low > 0 and high / low > 40:
        axes.set_yscale('log')
        axes.set_ylim(low / 1.25, high * 1.25)
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 400 else (1,), numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        room = max((high - low) * 0.08, abs(high) * 0.01) or 1.0
        floor = 0.0 if low >= 0 and low - room < 0.25 * high else low - room
        axes.set_ylim(floor, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))


def _mark_best(axes: Axes, lines: Sequence[Line], best_step: int) -> None:
    axes.axvline(best_step, color=LIGHT['muted'], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    to_axes = axes.transData + axes.transAxes.inverted()
    at_best = [np.interp(best_step, line.steps, line.values) for line in lines]
    across = to_axes.transform((best_step, at_best[0]))[0]
    crowded = np.mean([to_axes.transform((best_step, value))[1] for value in at_best]) > 0.5
    side = {'ha': 'right' if across > 0.5 else 'left', 'va': 'bottom' if crowded else 'top'}
    place = (across - 0.015 if across > 0.5 else across + 0.015, 0.03 if crowded else 0.99)
    write(axes, *place, 'best', color=LIGHT['muted'], transform=axes.transAxes, **side)
    for line, value in zip(lines, at_best, strict=True):
        if line.label == 'validation' and best_step in line.steps:
            axes.plot(best_step, value, marker='o', markersize=6.5, color=line.colour, zorder=5)
            axes.plot(best_step, value, marker='o', markersize=3, color=LIGHT['surface'], zorder=6)


def label_ends(axes: Axes, lines: Sequence[Line], ends: Sequence[tuple[float, float]]) -> None:
    """Writes each line's name and last value to the right of its end, moved apart where they would touch."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(np.clip(to_axes.transform(end)[1], 0.0, 1.0)) for end in ends]
    # The panel's plot area is about 0.68 of its height; a label needs 1.25 times its font size.
    rows = axes.get_gridspec().nrows
    gap = 1.25 * (FONT_SIZE - 1) / (axes.figure.get_figheight() / rows * 72 * 0.68)
    # Where hues come up again, a point is not enough to tell the lines apart.
    dashed = len(lines) > NUM_HUES
    key = [1.015, 1.07] if dashed else [1.025]
    for line, end, height in zip(lines, ends, spread(heights, gap), strict=True):
        shape = '' if dashed else 's' if line.noisy else 'o'
        look = {'color': line.colour, 'linestyle': line.style, 'marker': shape, 'markersize': 3.5, 'clip_on': False}
        axes.plot(key, [height] * len(key), **look, transform=axes.transAxes)
        words = f'{shorten(line.label, 18)} {number(end[1])}'
        write(axes, key[-1] + 0.025, height, words, transform=axes.transAxes, va='center')


def panel_figure(panel: Panel, best_step: int | None = None) -> Figure:
    """Returns a figure with one panel."""
    return _grid([panel], best_step, 1)


def _grid(drawn: Sequence[Panel], best_step: int | None, columns: int) -> Figure:
    figure, all_axes = panels(len(drawn), columns=columns, width=WIDTH, height=HEIGHT)
    for axes, panel in zip(all_axes, drawn, strict=True):
        draw(axes, panel, best_step)
    return figure


def loss_panels(history: History, tasks: Sequence[str]) -> list[Panel]:
    """Returns the panels of `loss_curves`; a task without losses has none."""
    drawn = [
        Panel(task, task_lines(history, f'{task}/loss', hue(index), dashes(index)), 'loss', may_be_log=True)
        for index, task in enumerate(tasks)
    ]
    return [panel for panel in drawn if panel.lines]


def loss_curves(history: History, tasks: Sequence[str], best_step: int | None = None, columns: int = 3) -> Figure:
    """Returns one panel per task with its loss on every split.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in the order that fixes their colours.
      best_step: the step of the best checkpoint, marked when given.
      columns: panels side by side.
    """
    return _grid(loss_panels(history, tasks), best_step, columns)


def metric_names(history: History, task: str, primary: str | None = None) -> list[str]:
    """Returns the names of a task's metrics without the task, the primary one first.

    Loss, weight and gradient norm are none, and neither is what chance reaches of another metric.
    """
    metrics = [name.removeprefix(f'{task}/') for name in names_in(history) if name.startswith(f'{task}/')]
    no_metric = {*NO_METRICS, *(metric + CHANCE for metric in metrics)}
    return sorted((m for m in metrics if m not in no_metric), key=lambda metric: metric != primary)


def metric_panels(history: History, tasks: Sequence[str], primaries: Primaries) -> list[Panel]:
    """Returns the panels of `metric_curves`; those of primary metrics say which way is better."""
    drawn = []
    for index, task in enumerate(tasks):
        primary, higher = primaries.get(task, (None, True))
        for metric in metric_names(history, task, primary):
            title, is_primary = f'{task} · {metric.replace("_", " ")}', metric == primary
            lines = task_lines(history, f'{task}/{metric}', hue(index), dashes(index))
            lines += _chance_line(history, f'{task}/{metric}{CHANCE}')
            drawn.append(Panel(title, lines, direction(higher) if is_primary else '', primary=is_primary))
    return [panel for panel in drawn if panel.lines]


def _chance_line(history: History, name: str) -> list[Line]:
    """Returns the line of what chance reaches on validation, if the history knows."""
    steps, values = series(history, 'validation', name)
    return [Line('chance', steps, values, LIGHT['muted'], style=':')] if len(steps) else []


def run_panels(history: History, tasks: Sequence[str]) -> list[Panel]:
    """Returns a panel for every value that belongs to no task, such as the learning rate."""
    others = (GRADIENTS, MODALITIES, *(f'{task}/' for task in tasks))
    own = [name for name in names_in(history) if not name.startswith(others)]
    drawn = [Panel(name.replace('_', ' '), task_lines(history, name, hue(0))) for name in own]
    return [panel for panel in drawn if panel.lines]


def metric_curves(
    history: History,
    tasks: Sequence[str],
    best_step: int | None = None,
    primaries: Primaries | None = None,
    columns: int = 3,
    only_primary: bool = False,
) -> Figure:
    """Returns one panel per metric of each task, over every split, with what chance reaches where that is known.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in the order that fixes their colours.
      best_step: the step of the best checkpoint, marked when given.
      primaries: task -> (primary metric, higher is better); the primary metric comes first, with its direction.
      columns: panels side by side.
      only_primary: leaves out all other metrics.
    """
    drawn = metric_panels(history, tasks, primaries or {})
    return _grid([panel for panel in drawn if panel.primary or not only_primary], best_step, columns)


def direction(higher_is_better: bool) -> str:
    """Returns which way is better, in words."""
    return 'higher is better' if higher_is_better else 'lower is better'


def weight_curves(history: History, tasks: Sequence[str]) -> Figure:
    """Returns one panel with the balancing weight of every task over the steps.

    Args:
      history: rows of `metrics.jsonl`.
      tasks: names, in the order that fixes their colours.
    """
    return task_curves(history, tasks, 'weight', 'task weights')


def task_curves(history: History, tasks: Sequence[str], value: str, title: str) -> Figure:
    """Returns one panel with a value of every task in training."""
    lines = []
    for index, task in enumerate(tasks):
        steps, values = series(history, 'train', f'{task}/{value}')
        if len(steps):
            lines.append(Line(task, steps, values, hue(index), len(steps) > 20, dashes(index)))
    return wide_figure(Panel(title, lines, may_be_log=True))


def wide_figure(panel: Panel) -> Figure:
    """Returns a figure with one panel for many lines, high enough for a name at the end of each."""
    height = max(HEIGHT * 1.15, 0.6 + 0.14 * len(panel.lines))
    figure, (axes,) = panels(1, columns=1, width=WIDTH * 1.5, height=height)
    draw(axes, panel)
    return figure


def value_curve(history: History, name: str, title: str | None = None) -> Figure:
    """Returns one panel with a value that belongs to no task, such as `learning_rate` or `examples_per_second`."""
    return panel_figure(Panel(title or name.replace('_', ' '), task_lines(history, name, hue(0))))


def throughput(history: History) -> Figure:
    """Returns one panel with the examples per second of the training loop."""
    return value_curve(history, 'examples_per_second', 'examples per second')
