"""Reliability diagrams: how often answers of a confidence are right."""

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from mmtl_jax.metrics import Reliability
from mmtl_jax.reporting.samples import Evaluation
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, dress, hue, panels

TICKS = [0, 0.25, 0.5, 0.75, 1]
COUNTS = 0.16  # share of a panel's height in which the answers are counted


def reliability_diagrams(
    bins: Mapping[str, Reliability], tasks: list[str] | None = None, split: str = '', columns: int = 3
) -> Figure:
    """Returns one panel per task: how often its answers are right over their confidence, as bars (1706.04599, fig. 1).

    On the dashed line confidence is what it says; bars below it are too sure. Above the bars stands how many answers
    have that confidence.

    Args:
      bins: task -> its bins, from `metrics.reliability`.
      tasks: the names that fix the colours, by default those of `bins`.
      split: named in the titles.
      columns: panels side by side.
    """
    figure, all_axes = panels(len(bins), columns=columns, width=3.1, height=2.9)
    order = tasks or list(bins)
    for axes, (task, found) in zip(all_axes, bins.items(), strict=True):
        dress(axes, f'{task}, {split}' if split else task, f'ECE {found.ece:.3f}')
        _draw_bars(axes, found, hue(order.index(task)))
        _draw_counts(axes, found)
        axes.plot([0, 1], [0, 1], color=LIGHT['muted'], linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
        axes.set(xlim=(0, 1), ylim=(0, 1 / (1 - COUNTS)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(TICKS))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        words = f'confidence of {int(found.counts.sum()):,} answers'
        axes.set_xlabel(words, fontsize=FONT_SIZE - 1, color=LIGHT['muted'], labelpad=1)
        axes.set_ylabel('accuracy', fontsize=FONT_SIZE - 1, color=LIGHT['muted'], y=(1 - COUNTS) / 2)
    return figure


def reliability_figures(evaluations: Mapping[str, Mapping[str, Evaluation]]) -> Iterator[tuple[str, Figure]]:
    """Yields (split, figure) of every split in which a task has probabilities."""
    for split, by_task in evaluations.items():
        bins = {task: found.reliability for task, found in by_task.items() if found.reliability is not None}
        if bins:
            yield split, reliability_diagrams(bins, list(by_task), split)


def _draw_bars(axes: Axes, found: Reliability, colour: str) -> None:
    """Draws the accuracy of each bin that has answers, and a short line at their mean confidence."""
    width, (known,) = 1 / len(found.counts), np.nonzero(found.counts)
    accuracy, confidence = (sums[known] / found.counts[known] for sums in (found.correct, found.confidences))
    axes.bar((known + 0.5) * width, accuracy, 0.9 * width, color=colour, linewidth=0, zorder=2)
    axes.hlines(confidence, known * width, (known + 1) * width, color=LIGHT['ink'], linewidth=1.2, zorder=4)


def _draw_counts(axes: Axes, found: Reliability) -> None:
    """Draws how many answers each bin has, at the top."""
    width = 1 / len(found.counts)
    inset = axes.inset_axes((0.0, 1 - 0.8 * COUNTS, 1.0, 0.8 * COUNTS))
    inset.set_axis_off()
    inset.bar((np.arange(len(found.counts)) + 0.5) * width, found.counts, 0.9 * width, color=LIGHT['axis'], linewidth=0)
    inset.set(xlim=(0, 1), ylim=(0, max(found.counts.max(), 1)))
