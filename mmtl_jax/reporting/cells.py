"""Square matrices as pictures: one square a cell, the names at two sides."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, dress

GAPS_UP_TO = 30  # names; with more, the cells touch
NAMES_UP_TO = 60  # with more, only some of them are written


def draw_cells(axes: Axes, size: int, rows: np.ndarray, columns: np.ndarray, colours: np.ndarray | str) -> None:
    """Draws some cells of a matrix, the first row at the top.

    Args:
      axes: where to draw; they show the whole matrix.
      size: rows of the matrix.
      rows: `[n]`, of the cells.
      columns: `[n]`, of the cells.
      colours: `[n, 4]`, red, green, blue and opacity, in [0, 1]; or one colour for all.
    """
    gap = 0.03 if size <= GAPS_UP_TO else 0.0
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * (1 - 2 * gap)
    squares = np.stack([columns, rows], axis=-1)[:, None, :] + corners
    # Many borderless squares side by side show seams and make a large SVG: beyond the named sizes they become pixels.
    look = {'linewidth': 0, 'rasterized': size > NAMES_UP_TO}
    if isinstance(colours, str):
        axes.add_patch(PathPatch(Path.make_compound_path_from_polys(squares), facecolor=colours, **look))
    else:
        axes.add_collection(PolyCollection(squares, facecolors=colours, **look))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect='equal')


def name_cells(axes: Axes, names: Sequence[str], title: str) -> None:
    """Writes the names of rows and columns at the left and below, and a title."""
    dress(axes, title)
    axes.grid(visible=False)
    axes.spines['bottom'].set_visible(False)
    every = max(1, -(-len(names) // NAMES_UP_TO))
    places = range(0, len(names), every)
    size = FONT_SIZE - (0.5 if len(names) <= 20 else 2.5)
    labels = {'fontsize': size, 'color': LIGHT['ink-2'], 'parse_math': False}
    shown = [names[place] for place in places]
    axes.set_yticks(list(places), shown, **labels)
    upright = max(map(len, shown)) <= 3
    turned = {} if upright else {'rotation': 45, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(list(places), shown, **labels, **turned)
    axes.tick_params(length=0)
    axes.set_xlabel('')
