"""UPGrad and the dual projection: by hand, many tasks at once, preferences, and zero or opposite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import dual_cone
from mmtl_jax.balancing.dual_cone import project_onto_dual_cone
from tests.balancing.golden import JACOBIANS, goldens

BOTH = pytest.mark.parametrize('method', [balancing.upgrad, balancing.dual_projection])


def direction(balancer, rows):
    return np.asarray(balancing.aggregate(balancer, jnp.asarray(rows, jnp.float32))[0])


def test_two_that_conflict():
    rows = np.array([[1.0, 0.0], [-1.0, 1.0]])
    # Each made orthogonal to the other.
    np.testing.assert_allclose(direction(balancing.upgrad(), rows), [0.25, 0.75], rtol=1e-6)
    # Their mean, (0, 1/2), conflicts with neither.
    np.testing.assert_allclose(direction(balancing.dual_projection(), rows), [0.0, 0.5], atol=1e-7)


@pytest.mark.parametrize('width', [2000, 80, 53, 50])
def test_a_hundred_tasks_satisfy_the_conditions(width):
    # In 50 dimensions the cone is 0, and one guess does for all; in 53 many of the guesses do not do.
    tasks = 100
    assert tasks >= dual_cone.MANY
    rows = np.random.default_rng(0).normal(size=(tasks, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with jax.enable_x64(True):
        v = np.asarray(jax.jit(project_onto_dual_cone)(rows @ rows.T, np.eye(tasks)))
    multipliers, products = v - np.eye(tasks), v @ rows @ rows.T
    assert multipliers.min() >= 0
    assert products.min() >= -1e-12
    assert np.abs(multipliers * products).max() <= 1e-10


@BOTH
def test_no_conflict_leaves_the_mean(method):
    rows = np.array([[1.0, 0.0, 0.2], [0.5, 1.0, 0.0], [0.0, 0.1, 3.0]])
    np.testing.assert_allclose(direction(method(), rows), rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(direction(method([0.1, 0.3, 0.6]), rows), [0.1, 0.3, 0.6] @ rows, rtol=1e-6)


@BOTH
def test_preferences_scale_what_is_projected(method):
    rows = JACOBIANS['t3_d50_conflict']
    ones = direction(method([1.0, 1.0, 1.0]), rows)
    np.testing.assert_allclose(ones, 3 * direction(method(), rows), rtol=1e-4, atol=1e-5 * np.linalg.norm(rows))
    name = {'upgrad': 'UPGrad', 'dual_projection': 'DualProj'}[method.__name__]
    assert goldens('reference', name, 'exact,reg=0.0', 't3_d50_conflict')
    assert np.min(rows @ direction(method([0.0, 0.0, 1.0]), rows)) >= -1e-5 * np.linalg.norm(rows) ** 2


@BOTH
def test_zero_and_opposite_gradients(method):
    np.testing.assert_array_equal(direction(method(), np.zeros((3, 4))), np.zeros(4))
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(direction(method(), rows), np.zeros(2))
    # A zero gradient counts in the mean and constrains nothing.
    np.testing.assert_allclose(direction(method(), [[1.0, 1.0], [0.0, 0.0]]), [0.5, 0.5], rtol=1e-6)


@BOTH
@pytest.mark.parametrize('preference', [[1.0, -1.0], [float('nan'), 1.0]])
def test_bad_preferences(method, preference):
    with pytest.raises(ValueError, match=f'preference of {method.__name__} must be finite and at least 0'):
        method(preference)
