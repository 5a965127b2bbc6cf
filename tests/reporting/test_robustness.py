"""Curves over the level of a corruption: what is drawn is what was given."""

import numpy as np

from mmtl_jax.reporting import robustness_curves, style
from tests.reporting import runs

LEVELS = [0.0, 0.5, 1.0]
CURVES = {
    'transcript': {'speech:snr': (LEVELS, [0.2, 0.5, 0.9])},
    'category': {'image:noise': (LEVELS, [0.8, 0.7, 0.3]), 'speech:snr': ([0.0, 1.0], [0.8, 0.75])},
}


def drawn(axes):
    """Returns the lines over the levels, each as (levels, values); the labels' keys are points."""
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    return [(line.get_xdata().tolist(), np.round(line.get_ydata(), 6).tolist()) for line in lines]


def test_one_panel_per_task_in_the_order_of_the_tasks():
    figure = robustness_curves(CURVES, runs.PRIMARIES)
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['category · accuracy', 'transcript · cer']
    assert drawn(figure.axes[0]) == [(LEVELS, [0.8, 0.7, 0.3]), ([0.0, 1.0], [0.8, 0.75])]
    colours = [[line.get_color() for line in axes.lines if len(line.get_xdata()) > 1] for axes in figure.axes]
    assert colours[1] == colours[0][1:], 'a corruption has one colour in all panels'
    assert {text.get_text() for text in figure.axes[0].texts} == {'image:noise 0.300', 'speech:snr 0.750'}
    assert style.to_png(figure, dpi=40)


def test_the_baseline_begins_where_the_run_begins_and_stays_inside():
    baseline = {'category': {'image:noise': (LEVELS, [0.9, 0.4, 0.2]), 'text:swap': (LEVELS, [0.1, 0.1, 0.1])}}
    axes = robustness_curves(CURVES, runs.PRIMARIES, baseline=baseline).axes[0]
    low, high = axes.get_ylim()
    (line,) = [line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_alpha() == 0.6]
    np.testing.assert_allclose(line.get_ydata(), [0.8, 0.3, 0.1])
    assert low <= 0.1
    assert high >= 0.8
