"""Gradient blending: the published formula in numpy, groups, and what keeps its weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals, blend_weights

TRAIN = np.array([[2.0, 2.0, 2.0], [1.0, 0.5, 1.6]])
VALIDATION = np.array([[2.1, 2.2, 2.0], [1.4, 1.8, 1.7]])


def published(train, validation):
    """Returns G / O^2, divided by its sum, times the number of tasks."""
    fell = validation[0] - validation[1]
    grew = (validation[1] - train[1]) - (validation[0] - train[0])
    return len(fell) * (fell / grew**2) / (fell / grew**2).sum()


@pytest.mark.parametrize('unit', [1e-15, 1.0, 1e15])
def test_the_weights_are_the_published_ones_in_any_unit(unit):
    expected = published(TRAIN, VALIDATION)
    np.testing.assert_allclose(blend_weights(unit * TRAIN, unit * VALIDATION, least_ratio=1e-3), expected, rtol=1e-4)
    assert expected.argmax() == 2 > expected.argmin() == 1, 'who overfits most counts least'


def test_groups_are_blended_apart():
    weights = blend_weights(TRAIN, VALIDATION, groups=('a', 'b', 'a'), least_ratio=1e-3)
    np.testing.assert_allclose(weights[np.array([0, 2])], published(TRAIN[:, ::2], VALIDATION[:, ::2]), rtol=1e-4)
    assert weights[1] == 1.0


def test_a_loss_that_did_not_fall_gets_nothing_and_a_group_without_any_is_left_alone():
    validation = np.array([[2.1, 2.2, 2.0], [1.4, 2.3, 2.0]])
    assert blend_weights(TRAIN, validation).tolist() == [3.0, 0.0, 0.0]
    assert np.isnan(blend_weights(TRAIN, validation, groups=('a', 'b', 'b'))).tolist() == [False, True, True]


def test_a_ratio_of_zero_does_not_take_all():
    train, validation = np.array([[2.0, 2.0], [1.0, 1.0]]), np.array([[2.0, 2.0], [1.0, 1.5]])
    grew, fell = np.array([0.25 * 1.0, 0.5]), np.array([1.0, 0.5])
    expected = 2 * fell / grew**2 / (fell / grew**2).sum()
    np.testing.assert_allclose(blend_weights(train, validation, least_ratio=0.25), expected, rtol=1e-5)


def test_a_run_is_weighted_by_its_last_two_evaluations():
    balancer = balancing.gradient_blend(least_ratio=1e-3)
    update, validated = jax.jit(balancer.update), jax.jit(balancer.validated)
    state, everyone = balancer.init(3), jnp.ones(3, bool)
    for train, validation in zip(TRAIN, VALIDATION, strict=True):
        for factor in (0.5, 1.5):
            weights, state = update(Signals(jnp.asarray(factor * train, jnp.float32), everyone), state)
            assert weights.tolist() == [1.0, 1.0, 1.0]
        state = validated(jnp.asarray(validation, jnp.float32), everyone, state)
    weights, state = update(Signals(jnp.ones(3), jnp.array([True, True, False])), state)
    expected = published(TRAIN, VALIDATION)
    np.testing.assert_allclose(weights, [expected[0], expected[1], 0.0], rtol=1e-4)
    # No evaluation of the second, no step with the third: both stay as they are.
    after = validated(jnp.asarray(VALIDATION[1], jnp.float32), jnp.array([True, False, True]), state)
    for new, old in zip(after, state, strict=True):
        np.testing.assert_array_equal(new[1:], old[1:])


def test_bad_arguments():
    with pytest.raises(ValueError, match='least_ratio of gradient_blend must be positive, got 0'):
        balancing.gradient_blend(least_ratio=0)
    with pytest.raises(ValueError, match='groups of gradient_blend needs one entry per task: got 1 for 2 tasks'):
        balancing.gradient_blend(groups=['a']).init(2)
