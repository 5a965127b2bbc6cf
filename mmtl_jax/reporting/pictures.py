"""Pictures of a result: confusion matrices, spectrograms, a contact sheet of sample predictions."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mmtl_jax.reporting.cells import draw_cells, name_cells
from mmtl_jax.reporting.samples import Answer, Sample
from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, clean, dress, panels, write

COUNTS_UP_TO = 30  # classes; with more, the numbers in the cells cannot be read
DECIBELS = 70.0  # from the loudest point down to black


def confusion(matrix: np.ndarray, class_names: Sequence[str] = (), title: str = '') -> Figure:
    """Returns a confusion matrix: colour = share of the row (the recall), number = count.

    Args:
      matrix: `[C, C]` counts, row = expected, column = predicted.
      class_names: `C` names; class numbers when empty.
      title: over the picture.

    Raises:
      ValueError: the matrix is not square, or the number of names is another.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f'a confusion matrix is square with at least one class, got the shape {matrix.shape}.')
    size = len(matrix)
    if class_names and len(class_names) != size:
        raise ValueError(f'{size} classes and {len(class_names)} class names; give one name per class, or none.')
    names = [clean(name, 18) for name in class_names] or [str(index) for index in range(size)]
    side = min(max(0.36 * size, 1.6), 9.0) + 1.5
    figure, (axes,) = panels(1, columns=1, width=side + 0.3, height=side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    _draw_shares(axes, shares)
    if size <= COUNTS_UP_TO:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = shares[row, column] > 0.85
            colour = '#ffffff' if dark else LIGHT['ink']
            small = FONT_SIZE - (1.0 if matrix.max() < 1000 and size <= 20 else 2.5)
            write(axes, column, row, f'{matrix[row, column]:,}', color=colour, fontsize=small, ha='center', va='center')
    name_cells(axes, names, title)
    axes.set_xlabel('predicted', fontsize=FONT_SIZE, color=LIGHT['muted'])
    axes.set_ylabel('expected', fontsize=FONT_SIZE, color=LIGHT['muted'])
    return figure


def _draw_shares(axes: Axes, shares: np.ndarray) -> None:
    """Draws each cell as a square of one hue whose opacity is the share, so that it reads on light and dark pages."""
    rows, columns = np.nonzero(shares)
    colours = np.ones((len(rows), 4))
    colours[:, :3] = to_rgb(LIGHT['hue-0'])
    colours[:, 3] = 0.08 + 0.92 * shares[rows, columns]
    draw_cells(axes, len(shares), rows, columns, colours)


def decibels(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Returns the spectrogram `[T, F]` of a waveform in decibels below its loudest point, from -70 to 0.

    Hann windows of 25 ms every 10 ms; `F` frequencies from 0 to half the rate.

    Args:
      waveform: `[L]`, floats or int16.
      rate: samples per second.
    """
    samples = as_floats(waveform)
    window, hop = max(round(0.025 * rate), 2), max(round(0.01 * rate), 1)
    samples = np.pad(samples, (0, max(window - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), n=max(512, window))) ** 2
    relative = 10 * np.log10(np.maximum(power, 1e-30) / max(power.max(), 1e-20))
    return np.maximum(relative, -DECIBELS)


def as_floats(waveform: np.ndarray) -> np.ndarray:
    """Returns a waveform `[L]` as finite float32 in [-1, 1].

    Raises:
      ValueError: the waveform has channels.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f'a waveform is [L], got the shape {waveform.shape}; mix the channels to one.')
    floats = waveform / 32768 if np.issubdtype(waveform.dtype, np.integer) else waveform
    return np.clip(np.nan_to_num(np.asarray(floats, np.float32), nan=0.0), -1.0, 1.0)


def spectrogram_pixels(values: np.ndarray, rate: int | None = None) -> np.ndarray:
    """Returns a spectrogram as uint8 `[F, T, 3]`, low frequencies at the bottom.

    Args:
      values: a waveform `[L]` with its `rate` in Hz, or a log-mel spectrogram `[T, F]`.
      rate: samples per second of the waveform.
    """
    grid = _grid_of(values, rate).T[::-1]
    low, high = grid.min(), grid.max()
    return (mpl.colormaps['magma']((grid - low) / max(high - low, 1e-9))[..., :3] * 255).astype(np.uint8)


def _grid_of(values: np.ndarray, rate: int | None) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim == 1 and rate is not None:
        return decibels(values, rate)
    if values.ndim == 2 and values.size:
        return np.nan_to_num(np.asarray(values, np.float32))
    raise ValueError(
        f'a spectrogram is made of a waveform [L] with its rate, or of a log-mel [T, F]; '
        f'got the shape {values.shape} and the rate {rate}.'
    )


def spectrogram(
    values: np.ndarray, rate: int | None = None, *, seconds: float | None = None, title: str = ''
) -> Figure:
    """Returns a spectrogram with its axes.

    Args:
      values: a waveform `[L]` with its `rate` in Hz, or a log-mel spectrogram `[T, F]`.
      rate: samples per second of the waveform.
      seconds: duration of a log-mel spectrogram; its frames are counted when None.
      title: over the picture.
    """
    figure, (axes,) = panels(1, columns=1, width=5.2, height=2.2)
    pixels = spectrogram_pixels(values, rate)
    heard = rate is not None and np.ndim(values) == 1
    length = len(values) / rate if heard else seconds or pixels.shape[1]
    top = rate / 2000 if heard else pixels.shape[0]
    dress(axes, title)
    axes.grid(visible=False)
    axes.imshow(pixels, extent=(0, length, 0, top), aspect='auto', interpolation='bilinear')
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:g}')
    axes.xaxis.get_major_locator().set_params(integer=False)
    axes.set_xlabel('s' if heard or seconds else 'frame', fontsize=FONT_SIZE - 1, color=LIGHT['muted'])
    axes.set_ylabel('kHz' if heard else 'mel band', fontsize=FONT_SIZE - 1, color=LIGHT['muted'])
    return figure


def contact_sheet(samples: Sequence[Sample], columns: int = 4) -> Figure:
    """Returns samples side by side: picture (or spectrogram), text, and each task's answer, wrong ones in red.

    Args:
      samples: the examples; at most 24 are shown.
      columns: samples in a row.
    """
    samples = samples[:24]
    lines = [_lines(sample) for sample in samples]
    most = max((len(text) for text in lines), default=0)
    picture, line = 1.7, 0.165
    figure, all_axes = panels(len(samples), columns=columns, width=2.6, height=picture + 0.2 + line * most)
    for axes, sample, text in zip(all_axes, samples, lines, strict=True):
        axes.set_axis_off()
        total = picture + line * most
        place = axes.inset_axes((0.0, 1 - picture / total, 1.0, picture / total * 0.93))
        place.set_axis_off()
        place.set_anchor('W')
        _show_first(place, sample)
        for index, (words, colour) in enumerate(text):
            height = 1 - (picture + line * (index + 0.5)) / total
            write(axes, 0.0, height, words, color=colour, va='center', transform=axes.transAxes, clip_on=False)
    return figure


def _show_first(axes: Axes, sample: Sample) -> None:
    """Shows the picture of a sample, or else what it sounds like."""
    if sample.images:
        image = np.asarray(next(iter(sample.images.values())))
        if image.ndim == 3 and image.shape[-1] == 1:
            image = image[..., 0]  # with one channel as with none; matplotlib would show both in colours of its own
        axes.imshow(
            image, cmap='gray' if image.ndim == 2 else None, interpolation='nearest', aspect='equal', vmin=0, vmax=255
        )
    elif sample.waveforms:
        axes.imshow(spectrogram_pixels(*next(iter(sample.waveforms.values()))), aspect='auto')
    elif sample.spectrograms:
        axes.imshow(spectrogram_pixels(next(iter(sample.spectrograms.values()))), aspect='auto')


def _lines(sample: Sample) -> list[tuple[str, str]]:
    """Returns the lines (text, colour) below a sample's picture: its text, then two lines at most per task."""
    lines = []
    for text in sample.texts.values():
        wrapped = textwrap.wrap(clean(text, 90), 34) or ['']
        lines += [(part, LIGHT['ink']) for part in wrapped[:2]]
    for task, answer in sample.answers.items():
        lines += [(clean(words, 38), colour) for words, colour in _answer_lines(task, answer)]
    return lines


def _answer_lines(task: str, answer: Answer) -> list[tuple[str, str]]:
    sign = {True: '✓', False: '✗', None: '·'}[answer.correct]
    colour = {True: LIGHT['good'], False: LIGHT['bad'], None: LIGHT['ink-2']}[answer.correct]
    lines = [(f'{sign} {task}: {answer.predicted}', colour)]
    if not answer.correct and answer.expected != answer.predicted:
        lines.append((f'expected: {answer.expected}', LIGHT['muted']))
    return lines
