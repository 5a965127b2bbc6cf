"""Nash-MTL and FairGrad: by hand, against recorded values, invariance, clipping, and where there is no bargain."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from tests.balancing.golden import JACOBIANS, goldens

CONFLICT = np.array([[1.0, 0.0], [-0.8, 0.6], [0.1, 2.0]])


def aggregate(balancer, rows):
    direction, weights, _ = balancing.aggregate(balancer, jnp.asarray(rows, jnp.float32))
    return np.asarray(direction, np.float64), np.asarray(weights, np.float64)


@pytest.mark.parametrize('alpha', [0.3, 1.0, 2.0, 8.0])
def test_orthogonal_gradients_have_a_closed_form(alpha):
    lengths = np.array([0.2, 1.0, 5.0])
    _, weights = aggregate(balancing.fairgrad(alpha, None), np.diag(lengths))
    np.testing.assert_allclose(weights, lengths ** (-2 * alpha / (1 + alpha)), rtol=1e-5)


@pytest.mark.parametrize('alpha', [0.2, 0.5, 1.0, 2.0, 5.0])
def test_the_equation_holds(alpha):
    direction, weights = aggregate(balancing.fairgrad(alpha, None), CONFLICT)
    np.testing.assert_allclose(CONFLICT @ direction, weights ** (-1 / alpha), rtol=1e-4)


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0])
def test_fairgrad_is_that_of_torchjd(alpha):
    compared = 0
    for golden in goldens('torchjd17', 'FairGrad', f'alpha={alpha}'):
        rows = JACOBIANS[golden.target]
        gains, weights = rows @ golden.arrays['agg'], golden.arrays['weights']
        # Where their least-squares solver has solved the equation.
        if np.max(np.abs(gains * weights ** (1 / alpha) - 1)) > 1e-6 or golden.target == 't3_d20_zerorow':
            continue
        direction, _ = aggregate(balancing.fairgrad(alpha, None), rows)
        np.testing.assert_allclose(direction, golden.arrays['agg'], atol=1e-4 * np.linalg.norm(golden.arrays['agg']))
        compared += 1
    assert compared >= 5


def test_alpha_1_is_nash():
    for nash, fair in zip(
        aggregate(balancing.nash_mtl(), CONFLICT), aggregate(balancing.fairgrad(), CONFLICT), strict=True
    ):
        np.testing.assert_array_equal(nash, fair)


@pytest.mark.parametrize('factor', [1e-6, 1e6])
def test_nash_does_not_know_the_lengths(factor):
    direction, weights = aggregate(balancing.nash_mtl(None), CONFLICT)
    scales = np.array([[factor], [1.0], [3.0]])
    other, other_weights = aggregate(balancing.nash_mtl(None), scales * CONFLICT)
    np.testing.assert_allclose(other, direction, rtol=1e-4)
    np.testing.assert_allclose(other_weights * scales[:, 0], weights, rtol=1e-4)


def test_max_norm():
    direction, weights = aggregate(balancing.nash_mtl(None), CONFLICT)
    np.testing.assert_allclose(np.linalg.norm(direction), np.sqrt(3), rtol=1e-5)
    clipped, clipped_weights = aggregate(balancing.nash_mtl(0.5), CONFLICT)
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.5, rtol=1e-5)
    np.testing.assert_allclose(clipped_weights / clipped_weights[0], weights / weights[0], rtol=1e-5)
    np.testing.assert_array_equal(aggregate(balancing.nash_mtl(9.0), CONFLICT)[1], weights)


@pytest.mark.parametrize('balancer', [balancing.nash_mtl(None), balancing.fairgrad(2.0, None)], ids=['nash', 'fair'])
def test_no_bargain(balancer):
    # Opposite gradients, and three whose hull holds 0: no direction is a gain for all.
    for rows in (np.array([[1.0, 1.0], [-2.0, -2.0]]), np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])):
        direction, weights = aggregate(balancer, rows)
        np.testing.assert_array_equal(weights, np.zeros(len(rows)))
        np.testing.assert_array_equal(direction, np.zeros(2))


@pytest.mark.parametrize('balancer', [balancing.nash_mtl(), balancing.fairgrad(0.5)], ids=['nash', 'fair'])
def test_a_zero_gradient_sits_out(balancer):
    direction, weights = aggregate(balancer, np.insert(CONFLICT, 1, 0, axis=0))
    assert weights[1] == 0
    np.testing.assert_allclose(direction, aggregate(balancer, CONFLICT)[0], rtol=1e-4)


def test_bad_arguments():
    with pytest.raises(ValueError, match='alpha of fairgrad must be positive and finite, got 0'):
        balancing.fairgrad(alpha=0.0)
    with pytest.raises(ValueError, match='max_norm of nash_mtl must be positive and finite, or None, got -1'):
        balancing.nash_mtl(max_norm=-1.0)
