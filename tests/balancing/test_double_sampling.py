"""MoDo and SDMGrad against published implementations and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax.balancing import modo, sdmgrad
from tests.balancing.golden import SEQUENCE
from tests.balancing.replay import assert_sequence, on_sequence, start, step


@pytest.mark.parametrize(('gamma', 'libmtl', 'torchjd'), [(0.1, '0.1', '0.1'), (1e-3, '1e-3', '0.001')])
def test_modo_follows_the_published_trajectory(gamma, libmtl, torchjd):
    got = on_sequence(modo(gamma=gamma, relative=False))
    default = ' (defaults)' if gamma == 1e-3 else ''
    assert_sequence(got, 'libmtl', 'MoDo', f'gamma={libmtl},rho=0.1{default}', rtol=1e-12)
    assert_sequence(got, 'torchjd17', 'MoDo', f'gamma={torchjd},rho=0.1', rtol=1e-12)


def test_modo_by_hand():
    weights, expected = np.full(3, 1 / 3), []
    with jax.enable_x64(True):
        for first, second, third in SEQUENCE['J3']:
            products = first @ second.T
            products /= np.mean(np.sqrt(np.maximum(np.diag(products), 0))) ** 2
            moved = weights - 0.3 * (products @ weights + 0.2 * weights)
            weights = np.asarray(optax.projections.projection_simplex(jnp.asarray(moved)))
            expected.append(weights @ third)
    np.testing.assert_allclose(on_sequence(modo(gamma=0.3, rho=0.2)), expected, rtol=1e-9, atol=1e-12)


def test_sdmgrad_follows_the_published_trajectory():
    # Momentum and projection make it chaotic: two implementations agree to 1e-8 up to this step.
    got = on_sequence(sdmgrad())
    assert_sequence(got, 'libmtl', 'SDMGrad', 'lamda=0.3,niter=20 (defaults)', rtol=1e-8, steps=12)


def test_sdmgrad_pulls_to_the_mean_gradient():
    # The weights of the first part of the batch; a regularisation that drowns the rest is the mean.
    _, weights, _ = step(sdmgrad(regularization=1e6), SEQUENCE['J3'][0])
    np.testing.assert_allclose(weights[0], np.full(3, 1 / 3), rtol=1e-4)
    np.testing.assert_array_equal(weights[1:], np.zeros((2, 3)))


def test_sdmgrad_approaches_the_least_norm():
    # Without regularisation, orthogonal gradients of lengths 1 and 2 have their shortest combination at 4 to 1.
    rows = np.broadcast_to(np.array([[1.0, 0.0], [0.0, 2.0]]), (3, 2, 2))
    _, weights, _ = step(sdmgrad(regularization=0, learning_rate=0.3, num_iterations=100), rows)
    np.testing.assert_allclose(weights[0], [0.8, 0.2], rtol=1e-4)


@pytest.mark.parametrize('balancer', [modo(), sdmgrad()], ids=['modo', 'sdmgrad'])
def test_independent_gradients_that_contradict_each_other(balancer):
    # No positive entry on the diagonal, or none at all.
    rows = SEQUENCE['J3'][0]
    for splits in (np.stack([rows[0], -rows[0], rows[0]]), np.stack([rows[0], rows[0], -rows[0]]), 0 * rows):
        direction, weights, state = step(balancer, splits)
        assert np.all(np.isfinite(direction))
        assert np.all(np.isfinite(weights))
        assert np.all(np.isfinite(state.weights))


@pytest.mark.parametrize('balancer', [modo(gamma=1.0), sdmgrad()], ids=['modo', 'sdmgrad'])
def test_tasks_that_sit_out_leave_their_share_alone(balancer):
    rows = SEQUENCE['J3'][0]
    state = start(balancer, 3)._replace(weights=np.array([1.5, 1.0, 0.5]))
    rows[1, 2] = np.nan
    _, weights, after = step(balancer, rows, state=state)
    assert after.weights[2] == 0.5
    assert np.sum(after.weights[:2]) == pytest.approx(2.5, rel=1e-6)
    np.testing.assert_array_equal(weights[:, 2], np.zeros(3))
    assert np.sum(weights) == pytest.approx(1, rel=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'modo needs gamma and rho >= 0, got 0.1 and -1'):
        modo(rho=-1)
    with pytest.raises(ValueError, match=r'got 0.3, 5.0, 1.0 and 20'):
        sdmgrad(momentum=1.0)
