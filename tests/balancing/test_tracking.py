"""MoCo and DB-MTL against the published implementation and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax.balancing import db_mtl, moco
from tests.balancing.golden import JACOBIANS, LOSSES, SEQUENCE
from tests.balancing.replay import assert_matrices, assert_sequence, on_matrices, on_sequence, start, step

LIBMTL = {'normalization': 'loss', 'projection': 'softmax'}


def test_moco_equals_the_published_implementation():
    # Their 1e-8 beside the lengths.
    assert_matrices(on_matrices(moco(**LIBMTL)), 'libmtl', 'MoCo', 'defaults, step 1', rtol=1e-8)
    assert_sequence(on_sequence(moco(**LIBMTL)), 'libmtl', 'MoCo', 'defaults', rtol=1e-8)
    constant = moco(rho=0.1, beta_power=0, gamma_power=0, **LIBMTL)
    assert_sequence(on_sequence(constant), 'libmtl', 'MoCo', 'rho=0.1,beta_sigma=0,gamma_sigma=0', rtol=1e-8)


def test_moco_by_hand():
    tracked, weights = np.zeros((3, 12)), np.full(3, 1 / 3)
    expected = []
    with jax.enable_x64(True):
        for k, rows in enumerate(SEQUENCE['J'], start=1):
            tracked = tracked + 0.4 / k**0.3 * (rows - tracked)
            gramian = tracked @ tracked.T / np.mean(np.sum(tracked**2, axis=1))
            moved = weights - 0.7 / k**0.2 * (gramian + 0.05 * np.eye(3)) @ weights
            weights = np.asarray(optax.projections.projection_simplex(jnp.asarray(moved)))
            expected.append(weights @ tracked)
    got = on_sequence(moco(beta=0.4, beta_power=0.3, gamma=0.7, gamma_power=0.2, rho=0.05))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_moco_finds_the_weights_that_cancel():
    balancer = moco(beta=1.0, beta_power=0.0, gamma=0.5, gamma_power=0.0)
    rows = np.array([[1.0, 2.0], [-3.0, -6.0]])
    state = start(balancer, 2, 2)
    for _ in range(50):
        direction, _, state = step(balancer, rows, state=state)
    np.testing.assert_allclose(direction, [0, 0], atol=1e-4)
    np.testing.assert_allclose(state.weights / np.sum(state.weights), [0.75, 0.25], rtol=1e-4)


def test_db_mtl_equals_the_published_implementation():
    # Their 1e-8 beside the losses and the lengths.
    got = on_matrices(db_mtl(beta=0))
    assert_matrices(got, 'libmtl', 'DB_MTL', 'beta=0,beta_sigma=0 (no EMA)', rtol=2e-7)
    assert_matrices(on_matrices(db_mtl()), 'libmtl', 'DB_MTL', 'beta=0.9,beta_sigma=0 (defaults, step 1)', rtol=1e-7)
    for beta_power, hyperparameters in ((0.0, 'beta=0.9,beta_sigma=0 (defaults)'), (0.5, 'beta=0.9,beta_sigma=0.5')):
        got = on_sequence(db_mtl(beta_power=beta_power))
        assert_sequence(got, 'libmtl', 'DB_MTL', hyperparameters, rtol=1e-7)


def test_db_mtl_gives_every_task_the_length_of_the_longest():
    rows, losses = np.array(JACOBIANS['t3_d30_scale1e4']), np.array(LOSSES['t3_d30_scale1e4'])
    longest = np.max(np.linalg.norm(rows, axis=1) / losses)
    _, weights, _ = step(db_mtl(beta=0), rows, losses)
    np.testing.assert_allclose(weights * np.linalg.norm(rows, axis=1), np.full(3, longest), rtol=1e-5)
    _, averaged, _ = step(db_mtl(beta=0.75), rows, losses)
    lengths = averaged.weights * np.linalg.norm(averaged.rows, axis=1)
    np.testing.assert_allclose(lengths, np.full(3, longest / 4), rtol=1e-5)


@pytest.mark.parametrize('beta', [0.0, 0.9])
def test_db_mtl_lets_a_task_without_a_logarithm_sit_out(beta):
    rows = np.array(JACOBIANS['t3_d10'])
    direction, _, state = step(db_mtl(beta=beta), rows, np.array([1.0, 0.0, 2.0]))
    expected, _, _ = step(db_mtl(beta=beta), rows[[0, 2]], np.array([1.0, 2.0]))
    np.testing.assert_allclose(direction, expected, rtol=1e-5)
    if beta:
        np.testing.assert_array_equal(state.count, [1, 0, 1])
        assert not np.any(state.tracked[1])


@pytest.mark.parametrize('balancer', [moco(), db_mtl(beta_power=0.5)], ids=['moco', 'db_mtl'])
def test_averages_are_in_float32_for_gradients_in_less(balancer):
    rows = {'a': jnp.asarray(JACOBIANS['t3_d10'], jnp.bfloat16)}
    direction, _, state = step(balancer, rows)
    assert state.tracked['a'].dtype == jnp.float32
    again, _, same = step(balancer, rows, state=state)
    assert jax.tree.map(lambda leaf: leaf.dtype, state) == jax.tree.map(lambda leaf: leaf.dtype, same)
    assert np.all(np.isfinite(np.asarray(again['a'])))
    assert direction['a'].shape == (10,)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'moco needs a beta between 0 and 1 and a beta_power >= 0, got 1.5 and 0.5'):
        moco(beta=1.5)
    with pytest.raises(ValueError, match=r'gamma, gamma_power and rho >= 0, got -1, 0.5 and 0.0'):
        moco(gamma=-1)
    with pytest.raises(ValueError, match=r"normalizations \['none', 'loss'\], got 'l2'"):
        moco(normalization='l2')
    with pytest.raises(ValueError, match=r"projections \['simplex', 'softmax'\], got 'clip'"):
        moco(projection='clip')
    with pytest.raises(ValueError, match='db_mtl with beta=1 would never move'):
        db_mtl(beta=1)
    with pytest.raises(ValueError, match=r'db_mtl needs a beta between 0 and 1 and a beta_power >= 0, got 0.9 and -1'):
        db_mtl(beta_power=-1)
