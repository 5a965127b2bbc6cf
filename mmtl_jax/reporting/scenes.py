"""Examples whose answers lie in a picture: one row of panels for each, prediction beside truth."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmtl_jax.core.overlays import Mask, Overlay, Values
from mmtl_jax.reporting.overlays import as_rgb, bounds_of, draw_picture, draw_values
from mmtl_jax.reporting.style import clean, panels

LONGEST_SIDE = 384  # pixels; a larger picture makes the file larger, and what is seen of it no better
PANEL = 2.3  # inches
ABREAST = 4  # panels that fit beside each other; a scene with more has a row of its own


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture with the answers that lie in it.

    Attributes:
      image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floats in [0, 1].
      answers: task -> (predicted, expected), both of one kind of `mmtl_jax.core.overlays`.
      title: of the example.
    """

    image: np.ndarray
    answers: Mapping[str, tuple[Overlay, Overlay]]
    title: str = ''


def scene_sheet(scenes: Sequence[Scene]) -> Figure:
    """Returns some panels for each scene: boxes and points in one panel, masks and values beside the truth.

    Scenes of many panels have a row each, others stand side by side.

    Args:
      scenes: at least one, with the same tasks or some of them.

    Raises:
      ValueError: no scene has an answer in the picture, or a picture or something over it is of another form.
    """
    rows = [list(_draws(scene)) for scene in scenes]
    columns = max(map(len, rows), default=0)
    if not columns:
        raise ValueError('scene_sheet needs at least one scene with an answer in its picture.')
    sides = [np.shape(scene.image)[:2] for scene in scenes]
    tallest = min(max(height / width for height, width in sides), 2.0)
    abreast = max(1, ABREAST // columns)
    figure, all_axes = panels(len(rows) * columns, columns=abreast * columns, width=PANEL, height=PANEL * tallest + 0.5)
    for place, axes in enumerate(all_axes):
        row, column = divmod(place, columns)
        if column < len(rows[row]):
            rows[row][column](axes)
        else:
            axes.remove()
    return figure


def _draws(scene: Scene) -> Iterator[Callable[[Axes], None]]:
    """Yields what draws each panel of a scene."""
    image, above = _shrunk(scene.image), f'{clean(scene.title, 40)}: ' if scene.title else ''
    for task, (predicted, expected) in scene.answers.items():
        names = [f'{above}{task}, {which}' for which in ('predicted', 'expected')]
        if isinstance(predicted, Mask):
            yield partial(draw_picture, image=image, predicted=[predicted], title=names[0])
            yield partial(draw_picture, image=image, expected=[expected], title=names[1])
        elif isinstance(predicted, Values):
            bounds = bounds_of([expected, predicted])
            yield partial(draw_values, shown=predicted, bounds=bounds, title=names[0])
            yield partial(draw_values, shown=expected, bounds=bounds, title=names[1])
        else:
            yield partial(draw_picture, image=image, predicted=[predicted], expected=[expected], title=above + task)
        above = ''


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Returns a picture whose sides are at most `LONGEST_SIDE`, as uint8 `[H, W, 3]`."""
    small = Image.fromarray(np.round(as_rgb(image) * 255).astype(np.uint8))
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(small)
