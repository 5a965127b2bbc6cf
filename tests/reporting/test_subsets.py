"""The table of subsets and the bars of Shapley values: what is drawn is what was given."""

import pytest

from mmtl_jax.reporting import shapley_bars, style, subset_table
from tests.reporting import runs

MODALITIES = ('co$t', 'image')
SCORES = {
    ('co$t', 'image'): {'category': 0.9, 'transcript': 0.25},
    ('image',): {'category': 0.5, 'transcript': 1.5},
    (): {'category': 0.1},
}


def test_the_table_has_a_number_for_each_value_and_the_best_is_full():
    figure = subset_table(SCORES, MODALITIES, runs.PRIMARIES, 'subsets')
    (axes,) = figure.axes
    cells = [text.get_text() for text in axes.texts if text.get_position()[1] in (0, 1, 2)]
    assert cells == ['0.900', '0.500', '0.100', '0.250', '1.500', '·']
    opacity = [patch.get_facecolor()[3] for patch in axes.patches]
    assert opacity == pytest.approx([1.0, 0.54, 0.08, 1.0, 0.08])
    assert style.to_png(figure, dpi=40)


def test_equal_values_are_all_the_best_and_an_unknown_task_has_no_column():
    axes = subset_table({('image',): {'category': 0.5}, (): {'category': 0.5}}, ('image',), runs.PRIMARIES).axes[0]
    assert [patch.get_facecolor()[3] for patch in axes.patches] == [1.0, 1.0]
    assert not any(text.get_text() == 'transcript' for text in axes.texts)


def test_bars_are_the_values_and_stay_inside():
    worth = {'category': {'co$t': 0.25, 'image': -0.5}, 'transcript': {'co$t': 0.0, 'image': 0.0}}
    figure = shapley_bars(worth, MODALITIES, runs.PRIMARIES)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, -0.5]
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ['+0.250', '-0.500']
    low, high = figure.axes[0].get_xlim()
    assert low < -0.5
    assert high > 0.25
    assert figure.axes[1].get_title(loc='right') == 'lower is better'
    assert style.to_png(figure, dpi=40)
