"""What a run recorded of each modality: how much the fusion lets it count, and how much OGM-GE slows it down.

A row of validation has `modalities/<modality>/weight`, a row of training `modalities/<modality>/coefficient` and
`modalities/<modality>/ratio`, where fusion and config have such.
"""

from collections.abc import Iterator

from matplotlib.figure import Figure

from mmtl_jax.reporting import curves
from mmtl_jax.reporting.style import dashes, hue


def modality_curves(history: curves.History, value: str, split: str, title: str) -> Figure:
    """Returns one panel with a recorded value of every modality over the steps.

    Args:
      history: rows of `metrics.jsonl`.
      value: 'weight', 'coefficient' or 'ratio'.
      split: whose rows have it.
      title: over the panel.
    """
    lines = []
    for index, name in enumerate(_names(history, value)):
        steps, values = curves.series(history, split, name)
        if len(steps):
            label = name.removeprefix(curves.MODALITIES).removesuffix(f'/{value}')
            lines.append(curves.Line(label, steps, values, hue(index), len(steps) > 20, dashes(index)))
    return curves.wide_figure(curves.Panel(title, lines, may_be_log=value == 'ratio'))


def modality_figures(history: curves.History) -> Iterator[tuple[str, Figure]]:
    """Yields (file name, figure) of what a run recorded of its modalities."""
    if _names(history, 'weight'):
        title = 'weights of the modalities in the fusion, validation'
        yield 'modality_weights', modality_curves(history, 'weight', 'validation', title)
    if _names(history, 'coefficient'):
        title = 'OGM-GE: factors on the gradients of the encoders'
        yield 'modality_coefficients', modality_curves(history, 'coefficient', 'train', title)
    if _names(history, 'ratio'):
        title = 'OGM-GE: each modality alone against the mean of the others'
        yield 'modality_ratios', modality_curves(history, 'ratio', 'train', title)


def _names(history: curves.History, value: str) -> list[str]:
    return [
        name for name in curves.names_in(history) if name.startswith(curves.MODALITIES) and name.endswith(f'/{value}')
    ]
