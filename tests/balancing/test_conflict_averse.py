"""CAGrad: the ball, the best worst gain, the factors, and where no direction is a gain for all."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing


def direction(rows, c=0.5, rescale=0):
    return np.asarray(balancing.aggregate(balancing.cagrad(c, rescale), jnp.asarray(rows, jnp.float32))[0], np.float64)


@pytest.mark.parametrize('c', [0.1, 0.5, 1.0, 3.0])
def test_nothing_in_the_ball_has_a_better_worst_gain(c):
    random = np.random.default_rng(0)
    rows = random.normal(size=(4, 6))
    mean, best = rows.mean(axis=0), direction(rows, c)
    radius = c * np.linalg.norm(mean)
    np.testing.assert_allclose(np.linalg.norm(best - mean), radius, rtol=1e-5)
    steps = random.normal(size=(20000, 6)) * 10 ** random.uniform(-4, 0, size=(20000, 1))
    others = best + radius * steps - mean
    others = mean + others * np.minimum(1, radius / np.linalg.norm(others, axis=1, keepdims=True))
    assert np.max(np.min(others @ rows.T, axis=1)) <= np.min(rows @ best) + 1e-5


def test_the_factors():
    rows = np.random.default_rng(1).normal(size=(3, 5))
    plain = direction(rows, 0.4)
    np.testing.assert_allclose(direction(rows, 0.4, 1), plain / 1.16, rtol=1e-6)
    np.testing.assert_allclose(direction(rows, 0.4, 2), plain / 1.4, rtol=1e-6)
    np.testing.assert_allclose(direction(rows, 0.0), rows.mean(axis=0), rtol=1e-5)


def test_where_no_direction_is_a_gain_for_all_the_nearest_to_the_mean_is_taken():
    # The zero gradient gains nothing from any direction; the mean is good for the others.
    rows = np.array([[1.0, 0.5], [0.0, 0.0], [0.5, 1.0]])
    np.testing.assert_allclose(direction(rows), rows.mean(axis=0), rtol=1e-6)
    # With opposite gradients, those that gain or lose nothing along them: the mean without what is along them.
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.3, 1.0]])
    np.testing.assert_allclose(direction(rows), [0.0, 1 / 3], atol=1e-6)
    # The ball does not reach them, so it goes as far as it can.
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(direction(rows, 0.1), rows.mean(axis=0) - [0.1 * np.sqrt(10) / 3, 0], rtol=1e-5)


def test_no_mean_no_direction():
    np.testing.assert_array_equal(direction([[1.0, 2.0], [-1.0, -2.0]]), np.zeros(2))


def test_small_gradients_are_no_special_case():
    rows = np.random.default_rng(2).normal(size=(3, 6))
    np.testing.assert_allclose(direction(1e-7 * rows) * 1e7, direction(rows), rtol=1e-4, atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match='c of cagrad must be finite and at least 0, got -1'):
        balancing.cagrad(c=-1.0)
    with pytest.raises(ValueError, match=r'rescale of cagrad must be one of \(0, 1, 2\), got 3'):
        balancing.cagrad(rescale=3)
