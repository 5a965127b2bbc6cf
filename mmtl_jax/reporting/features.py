"""The fused features of a split as a map: t-SNE, coloured by class and by the modalities that a row has."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from mmtl_jax.reporting.style import FONT_SIZE, LIGHT, NUM_HUES, dress, hue, panels, shorten

FEWEST = 5
GROUPS_UP_TO = 24
LONGEST = 36  # letters of a name in the legend
MARKERS = ('o', '^', 's')


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """Rows of a split in the plane.

    Attributes:
      points: `[N, 2]`.
      groups: title -> the group of each row, such as the name of its class; None for a row without.
    """

    points: np.ndarray
    groups: Mapping[str, Sequence[str | None]]


def embed(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns t-SNE (van der Maaten & Hinton, JMLR 2008) of features `[N, D]` as points `[N, 2]`.

    The perplexity is 30, or a third of the rows where they are fewer; it starts from the first principal components.

    Raises:
      ValueError: there are fewer than five rows, or a value is not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < FEWEST or not np.isfinite(features).all():
        raise ValueError(
            f't-SNE needs {FEWEST} rows or more of finite features [N, D], got the shape {features.shape}'
            f'{"" if np.isfinite(features).all() else " with values that are not finite"}.'
        )
    spread = features.std()
    if spread == 0:
        return np.zeros((len(features), 2))
    perplexity = min(30.0, (len(features) - 1) / 3)
    init = 'pca' if features.shape[1] > 1 else 'random'
    # Several threads wait for each other by spinning: a hundred times as long where something else runs on a core.
    with threadpool_limits(limits=1, user_api='openmp'):
        return TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(features / spread)


def feature_map(shown: FeatureMap, columns: int = 2) -> Figure:
    """Returns a panel for each way to group the rows, all with the same points.

    Args:
      shown: points and groups; beyond 23 groups the smallest are one, 'others'.
      columns: panels side by side.
    """
    legends = {title: _by_size(groups) for title, groups in shown.groups.items()}
    most = max((len(names) for names in legends.values()), default=0)
    figure, all_axes = panels(len(legends), columns=columns, width=4.2, height=3.4 + 0.16 * math.ceil(most / 3))
    for axes, (title, names) in zip(all_axes, legends.items(), strict=True):
        _draw_groups(axes, shown, title, names)
    return figure


def _by_size(groups: Sequence[str | None]) -> list[str]:
    """Returns the names that are drawn by themselves, the most frequent ones, in alphabetical order."""
    names, counts = np.unique([name for name in groups if name is not None], return_counts=True)
    if len(names) <= GROUPS_UP_TO:
        return names.tolist()
    return sorted(names[np.argsort(-counts, kind='stable')[: GROUPS_UP_TO - 1]].tolist())


def _draw_groups(axes: Axes, shown: FeatureMap, title: str, names: Sequence[str]) -> None:
    """Draws the points of one panel, those without a group first and grey, and says below which is which."""
    dress(axes, title)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[], xlabel='')
    axes.spines['bottom'].set_visible(False)
    groups = np.array([name if name in names else '' if name is None else 'others' for name in shown.groups[title]])
    size = float(np.clip(2500 / max(len(groups), 1), 5, 22))
    for rest, label in (('', None), ('others', 'others')):
        if (groups == rest).any():
            points = shown.points[groups == rest]
            axes.scatter(*points.T, s=size, color=LIGHT['axis'], linewidths=0, label=label)
    for index, name in enumerate(names):
        marker = MARKERS[index // NUM_HUES % len(MARKERS)]
        points = shown.points[groups == name]
        axes.scatter(
            *points.T, s=size, color=hue(index), marker=marker, linewidths=0, alpha=0.85, label=shorten(name, LONGEST)
        )
    longest = max((len(shorten(name, LONGEST)) for name in names), default=1)
    legend = axes.legend(
        loc='upper center', bbox_to_anchor=(0.5, 0.0), ncols=max(1, min(3, 54 // longest)), frameon=False,
        fontsize=FONT_SIZE - 1.5, labelcolor=LIGHT['ink-2'], handletextpad=0.2, columnspacing=0.9, markerscale=1.3,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
