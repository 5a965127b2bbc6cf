"""The report's part about what a run cost: device, parameters, speed, time, memory."""

from collections.abc import Mapping
from typing import Any

from mmtl_jax.reporting.page import Html, flatten, table, tag
from mmtl_jax.reporting.style import number

LABELS = {'compile': 'compilation', 'data': 'data preparation', 'input_wait': 'waiting for input'}


def resources_section(resources: Mapping[str, Any]) -> list[Html]:
    """Returns the elements of the section; empty when nothing is known.

    Args:
      resources: what is known of
        `device`: text;
        `parameters`: their number, or part of the model -> number;
        `examples_per_second`: training speed;
        `seconds`: `total` and its parts, such as `compile`, `evaluation`, `input_wait`; the rest of it is training;
        `peak_memory_bytes`: the largest resident size;
        `bad_examples`: `skipped`, how many examples could not be used, and `why`, a sentence for each of the first;
        anything else is shown as it is.
    """
    if not resources:
        return []
    rows = []
    for name, value in resources.items():
        if name == 'parameters' and isinstance(value, Mapping):
            rows.append(('parameters', f'{sum(value.values()):,}'))
        elif name == 'seconds' and isinstance(value, Mapping):
            rows.append(('time', duration(value['total']) if 'total' in value else ''))
        elif name == 'bad_examples':
            rows.append(('bad examples, skipped', f'{value["skipped"]:,}'))
        elif name == 'peak_memory_bytes':
            rows.append(('peak memory', f'{value / 2**30:.2f} GiB'))
        elif isinstance(value, Mapping):
            rows += [(key.replace('_', ' '), text) for key, text in flatten(value, f'{name}.')]
        else:
            shown = number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
            rows.append((name.replace('_', ' '), shown))
    cards = [tag('div', table([], rows, class_='plain'), class_='card')]
    if isinstance(resources.get('seconds'), Mapping) and resources['seconds'].get('total'):
        cards.append(_time(resources['seconds']))
    if isinstance(resources.get('parameters'), Mapping):
        cards.append(_parameters(resources['parameters']))
    return [tag('div', cards, class_='grid'), _bad_examples(resources.get('bad_examples'))]


def _bad_examples(found: Mapping[str, Any] | None) -> Html | None:
    """Returns what is wrong with the first examples that could not be used, folded away."""
    if not found:
        return None
    sentences = tag('ul', [tag('li', sentence) for sentence in found['why']])
    label = f'Bad examples ({found["skipped"]:,})'
    return tag('details', tag('summary', label), tag('div', sentences, class_='card'))


def duration(seconds: float) -> str:
    """Returns seconds as `8.2 s`, `3 min 5 s` or `2 h 4 min`."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


def _time(seconds: Mapping[str, float]) -> Html:
    """Returns a bar that shows where the time went."""
    parts = {LABELS.get(name, name.replace('_', ' ')): value for name, value in seconds.items() if name != 'total'}
    parts = {'training': max(seconds['total'] - sum(parts.values()), 0.0), **parts}
    return _shares('Time', {name: (value, duration(value)) for name, value in parts.items()})


def _parameters(counts: Mapping[str, int]) -> Html:
    """Returns a bar that shows which part of the model holds the parameters."""
    return _shares('Parameters', {name: (value, f'{value:,}') for name, value in counts.items()})


def _shares(title: str, parts: Mapping[str, tuple[float, str]]) -> Html:
    colours = [f'--task:var(--hue-{index % 8})' for index in range(len(parts))]
    total = sum(value for value, _ in parts.values()) or 1
    bar = [
        tag('i', style=f'{colour};flex:{value / total:.5f} 0 0')
        for colour, (value, _) in zip(colours, parts.values(), strict=True)
    ]
    key = [
        tag('span', tag('i', style=colour), f'{name} {text} ({value / total:.0%})')
        for colour, (name, (value, text)) in zip(colours, parts.items(), strict=True)
    ]
    return tag('div', tag('h3', title), tag('div', bar, class_='bar'), tag('div', key, class_='key'), class_='card')
