"""The areas of MultiBench: against numbers worked out by hand, and against the sums of its code."""

import numpy as np
import pytest

from mmtl_jax.metrics import effective_robustness, relative_robustness

LEVELS = np.linspace(0, 1, 11)
CURVE = np.array([0.9, 0.88, 0.85, 0.8, 0.7, 0.62, 0.55, 0.5, 0.42, 0.4, 0.35])
LATE_FUSION = np.array([0.8, 0.77, 0.71, 0.65, 0.6, 0.5, 0.41, 0.36, 0.3, 0.26, 0.2])


def test_relative_robustness_is_the_area_that_multibench_adds_up():
    expected = sum((CURVE[i] + CURVE[i + 1]) * 0.1 / 2 for i in range(10))
    assert relative_robustness(LEVELS, CURVE) == pytest.approx(expected)


def test_levels_need_not_be_even_nor_end_at_one():
    # A straight line from 1 at level 0: its mean over [0, .5] is that at .25.
    assert relative_robustness([0, 0.1, 0.5], [1, 0.9, 0.5]) == pytest.approx(0.75)


def test_effective_robustness_is_the_area_between_the_curves():
    difference = CURVE - (LATE_FUSION + CURVE[0] - LATE_FUSION[0])
    expected = (difference.sum() - (difference[0] + difference[-1]) / 2) * 0.1
    assert effective_robustness(LEVELS, CURVE, LATE_FUSION) == pytest.approx(expected)
    assert expected > 0


def test_a_curve_that_falls_like_its_baseline_has_none():
    assert effective_robustness(LEVELS, CURVE, CURVE - 0.3) == pytest.approx(0.0, abs=1e-12)


def test_the_better_is_above_zero_where_lower_is_better():
    error, late = 1 - CURVE, 1 - LATE_FUSION
    found = effective_robustness(LEVELS, error, late, higher_is_better=False)
    assert found == pytest.approx(effective_robustness(LEVELS, CURVE, LATE_FUSION))


@pytest.mark.parametrize('levels', [[0.0], [0.0, 0.0], [0.5, 0.2], [0.0, 0.5, 1.0]])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match='at least two increasing levels and a value for each'):
        relative_robustness(levels, [0.9, 0.8] if len(levels) != 1 else [0.9])


def test_a_baseline_of_other_levels():
    with pytest.raises(ValueError, match='2 values and 3 of it'):
        effective_robustness([0, 1], [0.9, 0.5], [0.8, 0.6, 0.4])
