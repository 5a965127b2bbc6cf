"""MGDA: its conditions, its normalisations, and what it does where gradients or losses are 0."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from tests.balancing.golden import JACOBIANS, LOSSES, goldens

SQUARE = np.float32([[1.0, 0.0], [0.0, 1.0]])


def direction(rows, losses=None, normalization='none'):
    return balancing.aggregate(balancing.mgda(normalization), jnp.asarray(rows), losses)[0]


def test_the_shorter_of_two_in_one_direction():
    # The line search of LibMTL stops at .999 and .001.
    _, weights, _ = balancing.aggregate(balancing.mgda(), jnp.array([[1.0, 1.0], [50.0, 50.0]]))
    np.testing.assert_allclose(weights, [1.0, 0.0], atol=1e-7)


@pytest.mark.parametrize('normalization', ['none', 'l2', 'loss', 'loss+'])
def test_normalized_as_in_libmtl(normalization):
    for golden in goldens('libmtl', 'MGDA', f'mgda_gn={normalization}'):
        rows = JACOBIANS.get(golden.target)
        # LibMTL divides by 0 at the zero row, does not reach a corner, and stops 1e-5 before the end elsewhere.
        if rows is None or golden.target in ('t3_d20_zerorow', 't2_d10_dominated'):
            continue
        got = direction(rows.astype(np.float32), jnp.asarray(LOSSES[golden.target], jnp.float32), normalization)
        scale = {'none': 1, 'l2': np.linalg.norm(rows, axis=1), 'loss': LOSSES[golden.target]}
        scale['loss+'] = scale['l2'] * scale['loss']
        size = np.linalg.norm(rows / np.reshape(scale[normalization], (-1, 1)))
        np.testing.assert_allclose(got, golden.arrays['agg'], atol=2e-4 * size)


def test_no_gradient_has_a_smaller_product_than_the_direction_itself():
    rows = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    d = np.asarray(direction(rows))
    assert np.min(rows @ d) >= d @ d * (1 - 1e-5)


@pytest.mark.parametrize('normalization', ['none', 'l2', 'loss', 'loss+'])
def test_a_zero_gradient_is_stationary(normalization):
    rows = np.float32([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0], [0.0, 0.0]])
    d, weights, _ = balancing.aggregate(balancing.mgda(normalization), jnp.asarray(rows), jnp.ones(4))
    np.testing.assert_array_equal(d, np.zeros(2))
    np.testing.assert_array_equal(weights, [0.0, 0.5, 0.0, 0.5])


def test_the_size_of_a_loss_counts():
    expected = direction(SQUARE, jnp.array([0.5, 2.0]), 'loss')
    # The rows over the losses are (2, 0) and (0, 1/2), whose hull is nearest to 0 at (2, 8) / 17.
    np.testing.assert_allclose(expected, np.array([2.0, 8.0]) / 17, rtol=1e-6)
    np.testing.assert_array_equal(direction(SQUARE, jnp.array([-0.5, 2.0]), 'loss'), expected)


def test_losses_of_zero():
    np.testing.assert_allclose(direction(SQUARE, jnp.array([0.0, 1.0]), 'loss'), [0.0, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(direction(SQUARE, jnp.zeros(2), 'loss+'), [0.0, 0.0])
    # The infinitely long gradient gets what keeps it from losing: nothing is left along it.
    against = np.float32([[1.0, 0.0], [-1.0, 1.0]])
    np.testing.assert_allclose(direction(against, jnp.array([0.0, 1.0]), 'loss'), [0.0, 1.0], atol=1e-6)


def test_an_unknown_normalization():
    with pytest.raises(ValueError, match=r"knows the normalizations .*'loss\+'\), got 'max'"):
        balancing.mgda('max')
