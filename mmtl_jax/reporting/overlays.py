"""A picture with boxes, masks and points over it, predicted and true; depth and normals as pictures."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.typing import LineStyleType

from mmtl_jax.core.overlays import Boxes, Mask, Overlay, Points, Values
from mmtl_jax.metrics.pixels import at_size
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, NUM_HUES, clean, hue, number, shorten, write

BACKGROUND = 'background'
UNKNOWN = (-1, 255)
TINT, FADED = 0.55, 0.6  # the share of a class's colour in its pixels; of grey in a picture under a mask
CLASSES_UP_TO = 8  # in a legend, the largest
PREDICTED, EXPECTED, SHADE = LIGHT['hue-7'], '#ffffff', '#000000'
DASHES = (0, (3, 2))
WIDTH, SHADOW = 1.2, 2.3  # points, of lines and of what is behind them
SHADED = [withStroke(linewidth=SHADOW, foreground=SHADE)]


def draw_picture(
    axes: Axes,
    image: np.ndarray,
    *,
    predicted: Sequence[Overlay] = (),
    expected: Sequence[Overlay] = (),
    title: str = '',
    legend: bool = True,
) -> None:
    """Draws a picture, and over it what was predicted and what is true, told apart without colour too.

    Predicted boxes are solid, with class and score at their upper edge; true ones are dashed, with the class at their
    lower edge. Predicted points are crosses and true ones circles, joined by a line. A predicted mask tints the picture
    by class; a true one is outlined by white dashes, or tints the picture where none is predicted. What is unknown is
    striped. A figure of one scene with boxes and foreground::

        figure, (axes,) = panels(1, columns=1, width=3, height=3.3)  # of reporting.style
        draw_picture(
            axes,
            image,
            predicted=[Boxes(boxes, names, scores), Mask(classes, ('background', 'foreground'))],
            expected=[Boxes(true_boxes, true_names)],
        )

    Args:
      axes: where to draw: any axes of matplotlib.
      image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floats in [0, 1].
      predicted: `Boxes`, a `Mask` and `Points` of `mmtl_jax.core.overlays`, at most one of each; a task's function
        `overlays` makes them of its output and target.
      expected: the same of the labels.
      title: over the picture.
      legend: say below the picture what is what.

    Raises:
      ValueError: the image, or something over it, is of another form.
    """
    pixels = as_rgb(image)
    size, handles = pixels.shape[:2], []
    found, true = ({type(overlay): _checked(overlay) for overlay in overlays} for overlays in (predicted, expected))
    mask = found.get(Mask, true.get(Mask))
    if mask is not None:
        pixels = tinted(pixels, mask)
        handles += _classes_legend(mask)
    axes.imshow(pixels, interpolation='none')
    for outlined, style in ((mask, '-'), (true.get(Mask) if mask is not true.get(Mask) else None, DASHES)):
        if outlined is not None:
            _draw_outlines(axes, outlined, size, style)
    for boxes, solid in ((true.get(Boxes), False), (found.get(Boxes), True)):
        if boxes is not None:
            _draw_boxes(axes, boxes, size, solid)
    _draw_points(axes, found.get(Points), true.get(Points), size)
    _finish(axes, size, title, [*handles, *_lines_legend(found, true)] if legend else [])


def draw_values(axes: Axes, shown: Values, bounds: tuple[float, float] | None = None, title: str = '') -> None:
    """Draws numbers as a picture: dark the lowest, bright the highest; of normals x, y and z as red, green and blue.

    Args:
      axes: where to draw.
      shown: `[h, w]` or `[h, w, C]`.
      bounds: the lowest and the highest number, so that several pictures compare; None takes those of the values.
      title: over the picture.

    Raises:
      ValueError: the values have another shape.
    """
    values = np.asarray(_checked(shown).values, np.float64)
    known = np.isfinite(values) if values.ndim == 2 else np.isfinite(values).all(axis=-1)
    if shown.normals:
        pixels, words = np.nan_to_num(values[..., :3]) / 2 + 0.5, 'x, y, z as red, green, blue'
    else:
        values = values if values.ndim == 2 else values[..., 0]
        low, high = bounds or bounds_of([shown])
        pixels = mpl.colormaps['viridis'](np.nan_to_num((values - low) / max(high - low, 1e-12)))[..., :3]
        words = f'{number(low)} (dark) to {number(high)} (bright)'
    unknown = np.where(_stripes(known.shape), 0.75, 0.95)[..., None]
    axes.imshow(np.where(known[..., None], np.clip(pixels, 0, 1), unknown), interpolation='none')
    _finish(axes, known.shape, title, [])
    write(axes, 0.0, -0.02, words, fontsize=FONT_SIZE - 1.5, va='top', transform=axes.transAxes)


def bounds_of(shown: Sequence[Values]) -> tuple[float, float]:
    """Returns the lowest and the highest of the numbers that are drawn, (0, 1) where none is known."""
    drawn = [np.asarray(one.values, np.float64) for one in shown]
    known = np.concatenate([np.ravel(values if values.ndim == 2 else values[..., 0]) for values in drawn])
    known = known[np.isfinite(known)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Returns a picture as floats `[H, W, 3]` in [0, 1].

    Raises:
      ValueError: it is none.
    """
    image = np.asarray(image)
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size or image.dtype.kind not in 'uf':
        raise ValueError(
            f'a picture is [H, W], [H, W, 1] or [H, W, 3], uint8 or floats from 0 to 1; got {image.dtype} of the shape '
            f'{image.shape}.'
        )
    scaled = pixels / np.iinfo(image.dtype).max if image.dtype.kind == 'u' else pixels
    return np.broadcast_to(np.clip(np.nan_to_num(scaled), 0, 1), (*pixels.shape[:2], 3)).astype(np.float32)


def tinted(pixels: np.ndarray, mask: Mask) -> np.ndarray:
    """Returns a picture `[H, W, 3]` of floats, half grey, tinted by class, with stripes where the class is unknown.

    The mask is brought to the size of the picture, each pixel by the nearest of the mask.
    """
    classes = at_size(np.asarray(mask.classes), pixels.shape[:2])
    pixels = (1 - FADED) * pixels + FADED * pixels.mean(axis=-1, keepdims=True)
    for label in _coloured(mask):
        here = classes == label
        pixels[here] = (1 - TINT) * pixels[here] + TINT * np.array(to_rgb(class_colour(label)))
    pixels[np.isin(classes, UNKNOWN) & _stripes(classes.shape)] = 0.75
    return pixels


def class_colour(label: int) -> str:
    """Returns the colour of a class in masks; from the ninth on the hues come again, lighter, then darker."""
    base, around = np.array(to_rgb(hue(label))), label // NUM_HUES % 3
    return mpl.colors.to_hex((base, 0.5 + 0.5 * base, 0.5 * base)[around])


def _stripes(shape: tuple[int, int]) -> np.ndarray:
    """Returns `[H, W]` bool: every other diagonal stripe."""
    width = max(1, min(shape) // 24)
    return np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // width % 2 == 1


def _coloured(mask: Mask) -> list[int]:
    """Returns the classes in a mask that have a colour, the largest first."""
    labels, counts = np.unique(mask.classes, return_counts=True)
    ordered = labels[np.argsort(-counts, kind='stable')].tolist()
    return [label for label in ordered if label not in UNKNOWN and _class_name(mask, label) != BACKGROUND]


def _class_name(mask: Mask, label: int) -> str:
    return mask.names[label] if label < len(mask.names) else f'class {label}'


def _draw_boxes(axes: Axes, boxes: Boxes, size: tuple[int, int], solid: bool) -> None:
    """Draws frames with what is in them: solid ones with the score above, dashed ones below."""
    scores = [None] * len(boxes.names) if boxes.scores is None else boxes.scores
    for box, name, score in zip(np.asarray(boxes.places, np.float64), boxes.names, scores, strict=True):
        top, left, bottom, right = box * np.tile(size, 2) - 0.5
        look = {'edgecolor': PREDICTED if solid else EXPECTED, 'linestyle': '-' if solid else DASHES}
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=WIDTH, **look)
        frame.set_path_effects([*SHADED, withStroke(linewidth=WIDTH, foreground=look['edgecolor'])])
        axes.add_patch(frame)
        words = shorten(name, 18) + ('' if score is None else f' {score:.0%}')
        place = {'x': left, 'y': top if solid else bottom, 'va': 'top' if solid else 'bottom'}
        colours = {'color': SHADE, 'bbox': {'facecolor': look['edgecolor'], 'linewidth': 0, 'pad': 0.6, 'alpha': 0.85}}
        text = axes.text(s=words, fontsize=FONT_SIZE - 2.5, parse_math=False, clip_on=True, **place, **colours)
        text.set_clip_path(axes.patch)


def _draw_outlines(axes: Axes, mask: Mask, size: tuple[int, int], style: LineStyleType) -> None:
    """Draws a line around every class of a mask."""
    classes = at_size(np.asarray(mask.classes), size)
    for label in _coloured(mask):
        # A frame of another class closes the outlines at the sides of the picture.
        inside = np.pad(classes == label, 1).astype(np.float32)
        rows, columns = (np.clip(np.arange(-1, side + 1), -0.5, side - 0.5) for side in size)
        colour, width = (class_colour(label), 0.8) if style == '-' else (EXPECTED, 1.0)
        lines = axes.contour(columns, rows, inside, levels=[0.5], colors=colour, linewidths=width, linestyles=[style])
        lines.set_path_effects([withStroke(linewidth=2 * width, foreground=SHADE)])


def _draw_points(axes: Axes, found: Points | None, true: Points | None, size: tuple[int, int]) -> None:
    """Draws crosses, circles and the lines between them."""
    places = [
        None if points is None else np.asarray(points.places, np.float64) * size - 0.5 for points in (found, true)
    ]
    if found is not None and true is not None:
        for pair in zip(*places, strict=True):
            axes.plot(*np.transpose(pair)[::-1], color=EXPECTED, linewidth=0.9, path_effects=SHADED)
    for points, drawn, is_found in ((true, places[1], False), (found, places[0], True)):
        for place, (y, x) in enumerate(() if points is None else drawn):
            axes.plot(x, y, **_point_look(is_found), linestyle='')
            if np.isfinite(y) and (not is_found or true is None):
                words = points.names[place] if points.names else str(place)
                text = axes.annotate(
                    words, (x, y), (4, 3), textcoords='offset points', fontsize=FONT_SIZE - 2.5, parse_math=False
                )
                text.set(color=EXPECTED, path_effects=[withStroke(linewidth=1.5, foreground=SHADE)])


def _point_look(is_found: bool) -> dict[str, object]:
    look = {'path_effects': SHADED, 'markersize': 6.0, 'markeredgewidth': WIDTH}
    if is_found:
        return {**look, 'marker': 'x', 'color': PREDICTED, 'markeredgecolor': PREDICTED}
    return {**look, 'marker': 'o', 'color': EXPECTED, 'markeredgecolor': EXPECTED, 'markerfacecolor': 'none'}


def _classes_legend(mask: Mask) -> list[Artist]:
    labels, edge = _coloured(mask), LIGHT['axis']
    handles = [
        Patch(facecolor=class_colour(label), edgecolor=edge, linewidth=0.5, label=shorten(_class_name(mask, label), 20))
        for label in labels[:CLASSES_UP_TO]
    ]
    more = len(labels) - CLASSES_UP_TO
    return [*handles, Line2D([], [], linestyle='', label=f'and {more} more')] if more > 0 else handles


def _lines_legend(found: dict[type, Overlay], true: dict[type, Overlay]) -> list[Artist]:
    """Returns what tells predicted and true lines and points apart."""
    handles = []
    for words, overlays, colour, style in (
        ('predicted', found, PREDICTED, '-'),
        ('expected', true, EXPECTED, DASHES),
    ):
        if Boxes in overlays or (Mask in overlays and Mask in found and overlays is true):
            handles.append(Line2D([], [], color=colour, linestyle=style, linewidth=WIDTH, label=words))
            handles[-1].set_path_effects(SHADED)
        elif Points in overlays:
            handles.append(Line2D([], [], linestyle='', label=words, **_point_look(overlays is found)))
    return handles


def _finish(axes: Axes, size: tuple[int, int], title: str, handles: Sequence[Artist]) -> None:
    """Leaves the picture alone in its axes, with its title over it and the legend below."""
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5), aspect='equal')
    axes.set_axis_off()
    axes.set_title(clean(title), loc='left', fontsize=FONT_SIZE, color=LIGHT['ink'], parse_math=False)
    if handles:
        legend = axes.legend(
            handles=handles, loc='upper left', bbox_to_anchor=(-0.02, 0.0), ncols=2, frameon=False,
            fontsize=FONT_SIZE - 1.5, labelcolor=LIGHT['ink-2'], handletextpad=0.5, columnspacing=1.0, borderpad=0.2,
            handlelength=1.6,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def _checked(overlay: Overlay) -> Overlay:
    """Returns the overlay, or raises a `ValueError` that says what is wrong with its shapes."""
    match overlay:
        case Boxes(places, names, scores):
            shape, expected = np.shape(places), f'[{len(names)}, 4] for {len(names)} names'
            right = shape == (len(names), 4) and (scores is None or np.shape(scores) == (len(names),))
        case Mask(classes):
            shape, expected, right = np.shape(classes), '[h, w]', np.ndim(classes) == 2 and np.size(classes) > 0
        case Values(values, normals):
            shape, expected = np.shape(values), '[h, w, 3]' if normals else '[h, w] or [h, w, C]'
            right = len(shape) == 3 and shape[2] == 3 if normals else len(shape) in (2, 3) and np.size(values) > 0
        case Points(places, names):
            shape, expected = np.shape(places), f'[{len(names) or "k"}, 2]'
            right = len(shape) == 2 and shape[1] == 2 and len(names) in (0, shape[0])
        case _:
            raise ValueError(f'expected Boxes, a Mask, Values or Points of core.overlays, got {overlay!r}.')
    if not right:
        raise ValueError(f'{type(overlay).__name__} over a picture have the shape {expected}, got {shape}.')
    return overlay
