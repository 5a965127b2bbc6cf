"""Reliability diagrams: what is drawn is what was counted, in the report too."""

import numpy as np
import pytest

from mmtl_jax.metrics import reliability
from mmtl_jax.reporting import Evaluation, reliability_diagrams, style, write_figures
from mmtl_jax.reporting.calibration import reliability_figures
from tests.reporting import runs
from tests.reporting.test_report import Page, written

TARGETS = np.array([0, 1, 1, 0])
PROBABILITIES = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])


def test_bars_are_the_accuracy_of_the_bins_that_have_answers():
    found = reliability(TARGETS, PROBABILITIES, num_bins=5)
    (axes,) = reliability_diagrams({'kind': found}, split='test').axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
    # Confidences .6 in (.4, .6], .7 in (.6, .8] and twice .9 in (.8, 1].
    np.testing.assert_allclose(bars, [(0.5, 0.0), (0.7, 1.0), (0.9, 0.5)])
    assert axes.get_title(loc='left') == 'kind, test'
    assert axes.get_title(loc='right') == f'ECE {found.ece:.3f}'
    (inset,) = axes.child_axes
    assert [bar.get_height() for bar in inset.patches] == [0, 0, 1, 1, 2]


def test_a_task_has_the_colour_of_its_place_and_a_task_without_probabilities_no_panel():
    found = reliability(TARGETS, PROBABILITIES)
    evaluations = {'test': {'size': Evaluation({}), 'kind': Evaluation({}, reliability=found)}, 'train': {}}
    ((split, figure),) = reliability_figures(evaluations)
    assert (split, len(figure.axes)) == ('test', 1)
    assert style.to_png(figure, dpi=40)
    red, green, blue = (int(style.hue(1)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    assert figure.axes[0].patches[0].get_facecolor()[:3] == pytest.approx((red, green, blue))


def test_the_report_has_a_section_and_the_folder_a_figure_per_split(tmp_path):
    evaluation = {'category': Evaluation(reliability=reliability(TARGETS, PROBABILITIES))}
    evaluations = {'validation': evaluation, 'test': evaluation}
    page = Page(written(tmp_path, evaluations=evaluations))
    assert 'calibration' in [attributes.get('id') for attributes in page.all('section')]
    assert page.texts.index('category, test') < page.texts.index('category, validation')
    without = Page(written(tmp_path))
    assert 'calibration' not in [attributes.get('id') for attributes in without.all('section')]
    shown = {name: runs.run()[name] for name in ('primaries', 'history', 'summary')}
    names = {path.name for path in write_figures(tmp_path, **shown, evaluations=evaluations)}
    assert {'reliability_test.png', 'reliability_validation.png'} <= names
