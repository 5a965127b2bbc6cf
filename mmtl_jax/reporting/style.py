"""One look for every figure: colours, axes, text, and the two ways out (PNG for files, SVG for the report).

Figures are made without pyplot, so nothing global is touched and no display is needed. Colours have a name; the SVG
refers to the name, so that the page decides what it looks like in light and in dark.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# name -> (light, dark). The eight hues are told apart with every common colour blindness, in this order.
COLOURS = {
    'hue-0': ('#2a78d6', '#3987e5'),
    'hue-1': ('#1baf7a', '#199e70'),
    'hue-2': ('#eda100', '#c98500'),
    'hue-3': ('#4a3aa7', '#9085e9'),
    'hue-4': ('#e34948', '#e66767'),
    'hue-5': ('#008300', '#10950f'),
    'hue-6': ('#e87ba4', '#d55181'),
    'hue-7': ('#eb6834', '#d95926'),
    'ink': ('#0b0b0b', '#f6f6f4'),
    'ink-2': ('#52514e', '#c3c2b7'),
    'muted': ('#898781', '#8a8882'),
    'grid': ('#e1e0d9', '#2c2c2a'),
    'axis': ('#c3c2b7', '#484844'),
    'surface': ('#fcfcfb', '#1a1a19'),
    'good': ('#0a7d0a', '#3fbf3f'),
    'bad': ('#d03b3b', '#f07070'),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
NUM_HUES = 8
FONT_SIZE = 8.5


def hue(index: int) -> str:
    """Returns the colour of the task with this index."""
    return LIGHT[f'hue-{index % NUM_HUES}']


def dashes(index: int) -> str:
    """Returns the line style of the task with this index: another one where the hues begin anew."""
    return ('-', '--', ':', '-.')[index // NUM_HUES % 4]


def clean(text: object, limit: int = 0) -> str:
    """Returns `text` on one line, without control characters, cut to `limit` characters if that is not 0."""
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in str(text)).split())
    return line if not limit or len(line) <= limit else line[: limit - 1].rstrip() + '…'


def shorten(name: object, limit: int) -> str:
    """Returns a name on one line; a longer one loses its middle, since names often differ at their ends."""
    line = clean(name)
    tail = (limit - 1) // 2
    return line if len(line) <= limit else f'{line[: limit - 1 - tail]}…{line[-tail:]}'


def number(value: float) -> str:
    """Returns a number as people read it: `0.613`, `12.4`, `1,234`, `1.2e-05`."""
    if not math.isfinite(value):
        return 'not finite'
    value = float(f'{value:.12g}')  # 4.9999999999999 is what a mean makes of 5
    if value == round(value) and abs(value) < 1e15:
        return f'{int(value):,}'
    size = abs(value)
    if size >= 1000:
        return f'{value:,.0f}'
    if size >= 100:
        return f'{value:.0f}' if size >= 999.5 else f'{value:.1f}'
    return f'{value:.2f}' if size >= 10 else f'{value:.3f}' if size >= 0.01 else f'{value:.2g}'


def steps(value: float) -> str:
    """Returns a step number as an axis label: `800`, `1.5k`, `20k`, `3M`."""
    for size, unit in ((1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:g}{unit}'
    return f'{value:g}'


def panels(count: int, *, columns: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure with `count` axes in a grid of at most `columns`; sizes of one panel in inches."""
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained', facecolor=LIGHT['surface'])
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, hspace=0.04, wspace=0.04)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def dress(axes: Axes, title: str, note: str = '') -> None:
    """Gives curves their look: a title at the left, horizontal grid lines, one spine, steps below."""
    axes.set_facecolor('none')
    axes.set_title(
        clean(title), loc='left', fontsize=FONT_SIZE + 1, color=LIGHT['ink'], fontweight='bold', parse_math=False
    )
    if note:
        axes.set_title(clean(note), loc='right', fontsize=FONT_SIZE - 1, color=LIGHT['muted'], parse_math=False)
    for side in ('top', 'right', 'left'):
        axes.spines[side].set_visible(False)
    axes.spines['bottom'].set(color=LIGHT['axis'], linewidth=0.8)
    axes.grid(axis='y', color=LIGHT['grid'], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which='both', colors=LIGHT['axis'], labelcolor=LIGHT['ink-2'], labelsize=FONT_SIZE - 1)
    axes.tick_params(axis='y', which='both', length=0)
    axes.tick_params(axis='x', length=2.5, width=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: steps(value)))
    axes.set_xlabel('step', fontsize=FONT_SIZE - 1, color=LIGHT['muted'], labelpad=1)


def write(axes: Axes, x: float, y: float, text: str, **properties: object) -> None:
    """Puts plain text (a `$` is a `$`) into `axes`, in the house's size and ink unless told otherwise."""
    defaults = {'fontsize': FONT_SIZE - 1, 'color': LIGHT['ink-2'], 'parse_math': False}
    axes.text(x, y, text, **{**defaults, **properties})


def spread(places: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Returns `places` moved apart, so that neighbours keep `gap`, in their order and inside `[low, high]`.

    Where there is no room for that, the gap shrinks.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    moved, floor = list(places), low
    for rank, index in enumerate(order):
        ceiling = high - gap * (len(places) - 1 - rank)
        moved[index] = min(max(places[index], floor), ceiling)
        floor = moved[index] + gap
    return moved


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """Returns the figure as a PNG."""
    return _save(figure, format='png', dpi=dpi)


def to_svg(figure: Figure, prefix: str) -> str:
    """Returns the figure as an `<svg>` element for a page that defines the colours as `--hue-0`, `--ink`, ...

    Args:
      figure: the figure; its background becomes transparent.
      prefix: goes before every id, so that several figures live in one page.
    """
    figure.patch.set_alpha(0.0)
    with mpl.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': prefix}):
        text = _save(figure, format='svg', metadata={'Date': None}).decode('utf-8')
    text = re.sub(r'<metadata>.*?</metadata>', '', text[text.index('<svg') :], flags=re.DOTALL)
    # The page gives the size, and HTML knows SVG without the names of its schemas.
    text = re.sub(r'^<svg[^>]*>', lambda top: re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', '', top.group()), text)
    # Inside the tags only: a label may say whatever it likes.
    return re.sub(r'<[^>]+>', lambda found: _for_page(found.group(), prefix), text)


def _for_page(tag: str, prefix: str) -> str:
    """Returns a tag of an SVG with its ids made unique, the page's font, and colours by their names."""
    names = {light: name for name, light in LIGHT.items()}
    tag = re.sub(r'(\sid="|url\(#|href="#)', rf'\g<1>{prefix}-', tag)
    tag = re.sub(r"'DejaVu Sans'[^;\"]*", 'var(--font)', tag)
    return re.sub(
        r'#[0-9a-f]{6}', lambda hit: f'var(--{names[hit.group()]})' if hit.group() in names else hit.group(), tag
    )


def _save(figure: Figure, **options: object) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks (Chinese, Thai, ...) shows as boxes in a PNG; the SVG uses the reader's fonts.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def finite(values: Iterable[float]) -> list[float]:
    """Returns the values that are numbers, without NaN and the infinities."""
    return [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
