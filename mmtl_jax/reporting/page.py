"""HTML by functions: every text is escaped unless a function here made it; the page needs nothing outside itself."""

import base64
import html
import io
import re
import wave
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mmtl_jax.reporting.pictures import as_floats
from mmtl_jax.reporting.style import COLOURS, to_svg

VOID = frozenset({'img', 'meta', 'br'})
WIDE = 7.5  # inches; a wider figure gets the page's whole width
NAVIGATION = re.compile(r'<nav>.*?</nav>', re.DOTALL)
SECTION = re.compile(r'<section id="[^"]*"><h2>(.*?)</h2>(.*?)</section>', re.DOTALL)


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Returns an element; children that are not `Html` are escaped, and so are attributes.

    Args:
      name: the element's name.
      *children: text and elements; None is left out, sequences are joined.
      **attributes: `class_` stands for `class`; None is left out, True gives the name alone.
    """
    written = ''
    for key, value in attributes.items():
        key = key.rstrip('_').replace('_', '-')
        if value is True:
            written += f' {key}'
        elif value is not None and value is not False:
            written += f' {key}="{html.escape(str(value))}"'
    if name in VOID:
        return Html(f'<{name}{written}>')
    return Html(f'<{name}{written}>{join(children)}</{name}>')


def join(children: object) -> Html:
    """Returns text and elements, nested sequences too, one after the other as markup."""
    if children is None:
        return Html('')
    if isinstance(children, Html):
        return children
    if isinstance(children, Iterable) and not isinstance(children, (str, bytes)):
        return Html(''.join(join(child) for child in children))
    # A lone surrogate cannot be written as UTF-8, and a control character is no HTML.
    text = str(children).encode('utf-8', 'replace').decode('utf-8')
    return Html(
        html.escape(''.join(c if c.isprintable() or c in '\n\t' else '\N{REPLACEMENT CHARACTER}' for c in text))
    )


def table(head: Sequence[object], rows: Iterable[Sequence[object]], class_: str = '') -> Html:
    """Returns a table that scrolls sideways by itself where the screen is narrow."""
    top = tag('thead', tag('tr', [tag('th', cell) for cell in head])) if head else None
    body = tag('tbody', [tag('tr', [tag('td', cell) for cell in row]) for row in rows])
    return tag('div', tag('table', top, body, class_=class_ or None), class_='scroll')


def breakable(name: str) -> Html:
    """Returns a name that a narrow screen may break after its slashes, dots and underscores."""
    return join([part if i % 2 == 0 else [part, Html('<wbr>')] for i, part in enumerate(re.split(r'([/._])', name))])


def flatten(values: Mapping[str, Any], prefix: str = '') -> list[tuple[str, str]]:
    """Returns nested values as (dotted name, text), in their order; in a list of mappings, the place is the name."""
    rows = []
    for key, value in values.items():
        name = f'{prefix}{key}'
        if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f'{name}.')
        else:
            rows.append((name, str(value)))
    return rows


def picture(
    pixels: np.ndarray, description: str, *, limit: int = 256, kind: str = 'png', class_: str | None = None
) -> Html:
    """Returns an image element that holds its file.

    Args:
      pixels: uint8 `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`.
      description: said in place of the picture.
      limit: longer sides are scaled down to this many pixels.
      kind: 'png', or 'jpeg' for what is noisy and may lose detail.
      class_: of the element.

    Raises:
      ValueError: the array is no such image.
    """
    pixels = np.asarray(pixels)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (3, 4))):
        raise ValueError(
            f'an image is uint8 [H, W], [H, W, 3] or [H, W, 4], got {pixels.dtype} of the shape {pixels.shape}; '
            f'scale it to 0..255 and convert it.'
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((limit, limit))
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True)
    return tag('img', src=_inline(f'image/{kind}', buffer.getvalue()), alt=description, class_=class_)


def sound(waveform: np.ndarray, rate: int) -> Html:
    """Returns a player that holds the waveform `[L]` (floats in [-1, 1] or int16; rate in Hz) as a 16-bit WAV."""
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes(np.round(as_floats(waveform) * 32767).astype('<i2').tobytes())
    return tag('audio', controls=True, preload='none', src=_inline('audio/wav', buffer.getvalue()))


def _inline(kind: str, data: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(data).decode("ascii")}'


def figure_card(figure: Figure, prefix: str) -> Html:
    """Returns a card with a figure; a wide one gets the page's whole width."""
    wide = figure.get_figwidth() > WIDE
    return tag('div', drawn(figure, prefix), class_='card figure wide' if wide else 'card figure')


def drawn(figure: Figure, prefix: str) -> Html:
    """Returns a figure that grows with the page, but not so far that its letters are larger than the page's."""
    return tag('div', Html(to_svg(figure, prefix)), class_='drawn', style=f'--inches:{figure.get_figwidth():g}')


def navigation(names: Iterable[str]) -> Html:
    """Returns the links to the sections of these names."""
    return tag('nav', [tag('a', name, href=f'#{name.lower()}') for name in names])


def sections(contents: Mapping[str, object]) -> Html:
    """Returns a section for each name."""
    return join([tag('section', tag('h2', name), content, id=name.lower()) for name, content in contents.items()])


def with_sections(page: str, contents: Mapping[str, object], order: Sequence[str]) -> str:
    """Returns a page of `document` in which some sections are new; one without content goes.

    Args:
      page: with `navigation` and `sections`.
      contents: name -> elements.
      order: the names of all sections that a page can have.
    """
    before = {html.unescape(found[1]): Html(found[2]) for found in SECTION.finditer(page)}
    names = [name for name in order if contents.get(name, before.get(name))]
    body = sections({name: contents.get(name, before.get(name)) for name in names})
    start, end = page.index('<section'), page.rindex('</section>') + len('</section>')
    head = NAVIGATION.sub(lambda _: navigation(names), page[:start], count=1)
    return head + body + page[end:]


def document(title: str, body: object) -> str:
    """Returns a whole page with the house's style, light or dark as the reader has it."""
    head = [
        tag('meta', charset='utf-8'),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('title', title),
        tag('style', Html(_colours() + STYLE)),
    ]
    return '<!DOCTYPE html>\n' + tag('html', tag('head', head), tag('body', body), lang='en') + '\n'


def _colours() -> str:
    """Returns the CSS variables of the colours, light first, then dark."""
    light = ''.join(f'--{name}:{light};' for name, (light, _) in COLOURS.items())
    dark = ''.join(f'--{name}:{dark};' for name, (_, dark) in COLOURS.items())
    return (
        f':root{{color-scheme:light dark;--page:#f5f5f4;{light}}}\n'
        f'@media (prefers-color-scheme:dark){{:root{{--page:#0f0f0e;{dark}}}}}\n'
    )


STYLE = """
:root { --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--font) }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px }
h2 { font-size: 20px; margin: 44px 0 12px }
h3 { font-size: 15px; margin: 0 }
p { margin: 4px 0 12px }
.note, nav { color: var(--ink-2) }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 12px }
a { color: inherit; text-underline-offset: 3px }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)) }
.grid > *, .scroll > *, .grid * { min-width: 0 }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 205px), 1fr)) }
.card { background: var(--surface); border: 1px solid var(--grid); border-radius: 10px; padding: 14px 16px }
.card svg { display: block; width: 100%; height: auto }
.figure { padding: 8px 8px 6px }
.wide { grid-column: 1 / -1; max-width: 1000px }
.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)) }
.card h3 + * { margin-top: 2px }
section > h3 { margin: 22px 0 10px }
.tile h3::before, .answer h3::before { content: ""; display: inline-block; width: 10px; height: 10px; margin-right: 7px;
  border-radius: 3px; background: var(--task, var(--muted)) }
.value { font-size: 32px; font-weight: 650; line-height: 1.25 }
.small { font-size: 13px; color: var(--ink-2); margin: 0 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--grid); vertical-align: top }
th { color: var(--ink-2); font-weight: 600; white-space: nowrap }
tr:last-child td { border-bottom: 0 }
.numbers { max-width: 760px }
.numbers td:first-child { overflow-wrap: anywhere }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums;
  padding: 5px 0 5px 18px }
.plain td:first-child { color: var(--ink-2); width: 40% }
.plain td { overflow-wrap: anywhere }
details { margin: 12px 0 }
summary { cursor: pointer; font-weight: 600; padding: 4px 0 }
details > :not(summary) { margin-top: 10px }
.sample { display: flex; flex-direction: column; gap: 9px }
.sample img { display: block; border-radius: 6px; max-width: 100% }
.top { display: flex; flex-wrap: wrap; gap: 8px 14px }
.top > div { flex: 1 1 150px }
.photo { height: 132px; width: auto; background: #fff; object-fit: contain }
.sound { width: 100%; height: 84px }
.drawn { max-width: calc(var(--inches) * 130px) }
.scene { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 14px 22px }
.scene .sample { flex: 1 1 230px }
.scene .drawn { flex: 4 1 560px }
.sample audio { width: 100%; height: 34px }
.text { font-size: 16px; margin: 0; overflow-wrap: anywhere }
.answer { font-size: 14px; overflow-wrap: anywhere; border-top: 1px solid var(--grid); padding-top: 7px }
.answer h3 { font-size: 13px; font-weight: 600; color: var(--ink-2) }
.answer p { margin: 0 }
.right b { color: var(--good) }
.wrong .said { color: var(--bad) }
.id { font-size: 12px; color: var(--muted); overflow-wrap: anywhere; margin: 4px 0 0 }
.bar { display: flex; height: 16px; gap: 2px; border-radius: 5px; overflow: hidden; margin: 10px 0 }
.bar i, .key i { background: var(--task) }
.key { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 2px 18px; font-size: 13px;
  color: var(--ink-2) }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px }
@media (max-width: 600px) { main { padding: 18px 12px 40px } h1 { font-size: 23px }
  .tiles { grid-template-columns: 1fr 1fr } .tile { padding: 10px 12px } .value { font-size: 25px } }
@media print { .card { break-inside: avoid } }
"""
