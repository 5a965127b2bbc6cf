"""Attention between modalities on one example: who attends to whom, and to what of it."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from mmtl_jax.reporting.pictures import spectrogram_pixels
from mmtl_jax.reporting.samples import Sample
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, clean, dress, panels, shorten, write

BLUES = LinearSegmentedColormap.from_list('attention', [LIGHT['surface'], LIGHT['hue-0']])


@dataclasses.dataclass(frozen=True)
class Attended:
    """An example with the attention of the fusion.

    Attributes:
      sample: what people see of it.
      weights: who asks -> who is asked -> `[tokens]`, the mean attention to each token.
    """

    sample: Sample
    weights: Mapping[str, Mapping[str, np.ndarray]]


def attention_figure(shown: Attended) -> Figure:
    """Returns a matrix of who attends to whom, and each modality with the attention that its tokens get from all.

    A picture is darkened where it gets little, if its tokens are a square grid, with a class token or without. A
    spectrogram and a text have a strip below, with one cell for each token from the first to the last.
    """
    askers, asked = list(shown.weights), list(dict.fromkeys(key for row in shown.weights.values() for key in row))
    figure, (matrix, *places) = panels(1 + len(asked), columns=1 + len(asked), width=2.7, height=2.7)
    _draw_matrix(matrix, shown, askers, asked)
    for axes, name in zip(places, asked, strict=True):
        received = np.mean([row[name] for row in shown.weights.values() if name in row], axis=0)
        _draw_modality(axes, name, received, shown.sample)
    return figure


def _draw_matrix(axes: Axes, shown: Attended, askers: list[str], asked: list[str]) -> None:
    shares = np.array([[np.sum(shown.weights[q].get(k, 0.0)) for k in asked] for q in askers])
    dress(axes, 'who attends to whom')
    axes.grid(visible=False)
    axes.spines['bottom'].set_visible(False)
    axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1, aspect='auto')
    for row, column in np.ndindex(*shares.shape):
        if asked[column] in shown.weights[askers[row]]:
            colour = '#ffffff' if shares[row, column] > 0.6 else LIGHT['ink']
            write(axes, column, row, f'{shares[row, column]:.0%}', color=colour, ha='center', va='center')
    labels = {'fontsize': FONT_SIZE - 1, 'color': LIGHT['ink-2'], 'parse_math': False}
    axes.set_xticks(range(len(asked)), [shorten(name, 12) for name in asked], **labels)
    axes.set_yticks(range(len(askers)), [shorten(name, 12) for name in askers], **labels)
    axes.set_xlabel('is asked', fontsize=FONT_SIZE - 1, color=LIGHT['muted'])
    axes.set_ylabel('asks', fontsize=FONT_SIZE - 1, color=LIGHT['muted'])


def _draw_modality(axes: Axes, name: str, received: np.ndarray, sample: Sample) -> None:
    """Draws one modality with the attention `[tokens]` that it gets."""
    axes.set_axis_off()
    look = {'fontsize': FONT_SIZE + 1, 'color': LIGHT['ink'], 'fontweight': 'bold', 'parse_math': False}
    axes.set_title(clean(name), loc='left', **look)
    grid = grid_of(received)
    if name in sample.images and grid is not None:
        axes.imshow(darkened(np.asarray(sample.images[name]), grid))
        return
    above = axes.inset_axes((0.0, 0.25, 1.0, 0.72))
    above.set_axis_off()
    if name in sample.images:
        pixels = np.asarray(sample.images[name])
        above.imshow(pixels.squeeze(), cmap='gray' if pixels.squeeze().ndim == 2 else None)
    elif name in sample.waveforms:
        above.imshow(spectrogram_pixels(*sample.waveforms[name]), aspect='auto')
    elif name in sample.spectrograms:
        above.imshow(spectrogram_pixels(sample.spectrograms[name]), aspect='auto')
    elif name in sample.texts:
        words = '\n'.join(textwrap.wrap(clean(sample.texts[name], 240), 32)[:9])
        write(above, 0.0, 1.0, words, va='top', transform=above.transAxes)
    strip = axes.inset_axes((0.0, 0.08, 1.0, 0.13))
    # One token alone has nothing to be compared with but all the attention that there is.
    most = 1.0 if len(received) == 1 else None
    strip.imshow(received[None], cmap=BLUES, aspect='auto', vmin=0, vmax=most, interpolation='nearest')
    strip.set(xticks=[], yticks=[])
    for spine in strip.spines.values():
        spine.set_color(LIGHT['axis'])
    words = f'one token, {received[0]:.0%}' if len(received) == 1 else f'{len(received)} tokens, first to last'
    write(strip, 0.0, -0.35, words, color=LIGHT['muted'], va='top', transform=strip.transAxes)


def grid_of(received: np.ndarray) -> np.ndarray | None:
    """Returns attention `[tokens]` as a square `[n, n]`, without the class token of a ViT; None if it is no square."""
    side = math.isqrt(len(received))
    if side < 2 or len(received) - side * side not in (0, 1):
        return None
    return received[len(received) - side * side :].reshape(side, side)


def darkened(pixels: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Returns a picture as uint8 `[H, W, 3]`, as bright as `grid [n, n]` says, its largest value in full."""
    rgb = np.asarray(Image.fromarray(np.ascontiguousarray(pixels.squeeze())).convert('RGB'), np.float32)
    scaled = Image.fromarray((grid / max(grid.max(), 1e-30)).astype(np.float32))
    light = np.asarray(scaled.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BILINEAR))
    return (rgb * (0.2 + 0.8 * np.clip(light, 0, 1))[..., None]).astype(np.uint8)
