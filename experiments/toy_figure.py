"""The figure of the toy problem: for each method its runs in the plane, and the same runs by their losses."""

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from experiments.toy_problem import REACH, Front, losses_at, losses_on_grid
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, steps, to_png, write

COLUMNS = 4
# In inches: a square panel, the gap between the two of a method, and what is around them.
PANEL, GAP, BESIDE, ABOVE = 1.42, 0.08, 0.16, 0.42
HEAD, FOOT, MARGIN = 0.72, 0.16, 0.2
TIME = LinearSegmentedColormap.from_list('time', [LIGHT['hue-2'], LIGHT['hue-4'], LIGHT['hue-3']])
CONTOURS = 9


class Runs(Protocol):
    """What is drawn of a method, see `experiments.toy.Outcome`."""

    method: str
    path: np.ndarray
    steps: np.ndarray
    on_front: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scenery:
    """What all panels share.

    Attributes:
      front: the Pareto front.
      ticks: `[N]`, of both axes of the plane.
      mean: `[N, N]`, the mean loss there, by y, then x.
      scale: of the first loss.
      time: steps -> 0 to 1.
    """

    front: Front
    ticks: np.ndarray
    mean: np.ndarray
    scale: float
    time: Normalize


def draw(front: Front, outcomes: Sequence[Runs], scale: float) -> bytes:
    """Returns a PNG of the runs at the first scale of the outcomes, which is `scale`."""
    ticks, values = losses_on_grid(111)
    # Early steps get most of the colours, for most runs are quick to arrive.
    time = PowerNorm(1 / 3, 0, int(outcomes[0].steps[-1]))
    scenery = Scenery(front, ticks, values.mean(axis=-1), scale, time)
    columns = min(COLUMNS, len(outcomes))
    rows = math.ceil(len(outcomes) / columns)
    cell = 2 * PANEL + GAP + BESIDE
    width = max(MARGIN * 2 + columns * cell, 9.2)
    height = HEAD + rows * (PANEL + ABOVE) + FOOT
    figure = Figure(figsize=(width, height), facecolor=LIGHT['surface'])
    for index, runs in enumerate(outcomes):
        left = MARGIN + index % columns * cell
        bottom = height - HEAD - (index // columns + 1) * (PANEL + ABOVE)
        axes = [
            figure.add_axes((x / width, bottom / height, PANEL / width, PANEL / height))
            for x in (left, left + PANEL + GAP)
        ]
        draw_method(axes, runs, scenery)
    draw_head(figure, scenery)
    return with_palette(to_png(figure, dpi=110))


def with_palette(png: bytes) -> bytes:
    """Returns the picture with 256 colours, in a quarter of the bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert('RGB').quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        buffer, format='png', optimize=True
    )
    return buffer.getvalue()


def draw_method(axes: Sequence[Axes], runs: Runs, scenery: Scenery) -> None:
    """Draws one method: the plane into the first axes, the space of the losses into the second."""
    plane, space = axes
    count, total = int(runs.on_front[0].sum()), len(runs.on_front[0])
    write(plane, 0, 1.06, runs.method, transform=plane.transAxes, color=LIGHT['ink'], fontweight='bold')
    write(space, 1, 1.06, f'{count} of {total} on the front', transform=space.transAxes, ha='right')
    draw_plane(plane, runs, scenery)
    draw_space(space, runs, scenery)


def draw_plane(axes: Axes, runs: Runs, scenery: Scenery) -> None:
    """Draws the contours of the mean loss, the front and the runs."""
    bare(axes)
    look = {'levels': CONTOURS, 'colors': LIGHT['axis'], 'linewidths': 0.6, 'linestyles': '-'}
    axes.contour(scenery.ticks, scenery.ticks, scenery.mean, **look)
    draw_runs(axes, runs.path[0], scenery.front.points, runs, scenery.time)
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))


def draw_space(axes: Axes, runs: Runs, scenery: Scenery) -> None:
    """Draws the front and the runs by their losses."""
    bare(axes)
    scales = np.array([scenery.scale, 1.0])
    front, path = scenery.front.losses * scales, np.asarray(losses_at(runs.path[0])) * scales
    draw_runs(axes, path, front, runs, scenery.time)
    low, high = np.array([-24.0, -24.0]) * scales, np.array([12.0, 12.0]) * scales
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def draw_runs(axes: Axes, path: np.ndarray, front: np.ndarray, runs: Runs, time: Normalize) -> None:
    """Draws the front `[N, 2]` and the runs `[5, N, 2]`: line coloured by time, start, and end."""
    axes.plot(*front.T, color=LIGHT['muted'], linewidth=4, solid_capstyle='round', zorder=2)
    for line, there in zip(path, runs.on_front[0], strict=True):
        segments = np.stack([line[:-1], line[1:]], axis=1)
        coloured = LineCollection(segments, array=runs.steps[:-1], cmap=TIME, norm=time, linewidths=1.1, zorder=3)
        axes.add_collection(coloured, autolim=False)
        axes.plot(*line[0], marker='o', markersize=3, color=LIGHT['ink'], zorder=4)
        axes.plot(*line[-1], **end_marker(there), zorder=5)


def end_marker(there: bool) -> dict:
    """Returns the look of the end of a run, on the front or not."""
    if there:
        look = {'marker': 'o', 'markersize': 5, 'color': LIGHT['surface'], 'markeredgecolor': LIGHT['good']}
        return {**look, 'markeredgewidth': 1.5, 'linestyle': ''}
    look = {'marker': 'X', 'markersize': 6, 'color': LIGHT['bad'], 'markeredgecolor': LIGHT['surface']}
    return {**look, 'markeredgewidth': 0.6, 'linestyle': ''}


def bare(axes: Axes) -> None:
    """Leaves of the axes only a thin frame: the head says what they are."""
    axes.set_facecolor('none')
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=LIGHT['axis'], linewidth=0.7)


def draw_head(figure: Figure, scenery: Scenery) -> None:
    """Writes above the panels what they show, and what colours and marks mean."""
    width, height = figure.get_size_inches()
    top = 1 - 0.2 / height
    text = (
        f'Left: the plane, both axes from {-REACH:g} to {REACH:g}, contours of the mean loss. '
        f'Right: first loss (times {scenery.scale:g}) across, second loss upwards; best is down and left.'
    )
    figure.text(MARGIN / width, top, text, fontsize=FONT_SIZE, color=LIGHT['ink-2'], va='top', parse_math=False)
    marks = [
        Line2D([], [], marker='o', markersize=3, color=LIGHT['ink'], linestyle='', label='start'),
        Line2D([], [], **end_marker(True), label='end on the front'),
        Line2D([], [], **end_marker(False), label='end elsewhere'),
        Line2D([], [], color=LIGHT['muted'], linewidth=4, label='Pareto front'),
    ]
    figure.legend(
        handles=marks, loc='upper left', bbox_to_anchor=((MARGIN - 0.1) / width, 1 - 0.4 / height), ncols=4,
        frameon=False, fontsize=FONT_SIZE, labelcolor=LIGHT['ink-2'], columnspacing=1.6, handletextpad=0.6,
        handlelength=1.8,
    )  # fmt: skip
    draw_time(figure, TIME, scenery.time)


def draw_time(figure: Figure, colours: Colormap, time: Normalize) -> None:
    """Draws the scale of the colours at the top right."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((5.4 / width, 1 - 0.6 / height, 2.2 / width, 0.1 / height))
    bar = figure.colorbar(ScalarMappable(time, colours), cax=axes, orientation='horizontal')
    bar.outline.set_visible(False)
    last = time.vmax
    bar.set_ticks(
        [part * last for part in (0, 0.01, 0.1, 0.4, 1)],
        labels=['step 0', *(steps(part * last) for part in (0.01, 0.1, 0.4, 1))],
    )
    axes.tick_params(labelsize=FONT_SIZE - 1, labelcolor=LIGHT['ink-2'], color=LIGHT['axis'], length=2.5)
