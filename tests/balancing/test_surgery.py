"""PCGrad and GradVac against published implementations, and against surgery on the gradients themselves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing import Signals, gradvac, pcgrad, per_group
from tests.balancing.golden import JACOBIANS, SEQUENCE, goldens
from tests.balancing.replay import assert_matrices, assert_sequence, on_matrices, on_sequence, start, step, steps

ORDERS = {'asc': 1, 'desc': -1}


@pytest.mark.parametrize('order', ORDERS)
def test_pcgrad_equals_the_published_implementations(order):
    got = on_matrices(pcgrad(shuffle=False), ORDERS[order])
    assert_matrices(got, 'torchjd08', 'PCGrad', f'order={order}', rtol=1e-14)
    # Its 1e-8 beside the squared length shows, most of all next to a gradient of length 0.01.
    assert_matrices(got, 'libmtl', 'PCGrad', f'order={order}', rtol=1e-6)
    if order == 'asc':
        assert_matrices(got, 'nashmtl', 'pcgrad', 'reduction=sum', rtol=1e-14)


def test_gradvac_equals_the_published_implementations():
    # LibMTL's 1e-8 in the denominators.
    assert_matrices(
        on_matrices(gradvac(0.5, shuffle=False)), 'libmtl', 'GradVac', 'beta=0.5,group_type=0,order=asc', rtol=1e-7
    )


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('beta', [0.5, 0.01])
def test_gradvac_follows_the_published_trajectory(beta, order):
    got = on_sequence(gradvac(beta, shuffle=False), ORDERS[order])
    assert_sequence(got, 'torchjd17', 'GradVac', f'beta={beta},order={order}', rtol=1e-8)
    if (beta, order) in ((0.5, 'asc'), (0.01, 'desc')):
        assert_sequence(got, 'libmtl', 'GradVac', f'beta={beta},group_type=0,order={order}', rtol=1e-8)


@pytest.mark.parametrize('group_type', [1, 2])
def test_gradvac_in_groups_follows_the_published_trajectory(group_type):
    balancer = per_group(gradvac(0.5, shuffle=False))
    (golden,) = goldens('libmtl', 'GradVac', f'beta=0.5,group_type={group_type},order=asc,groups=5+7', 's3')
    state = None
    for rows, expected in zip(SEQUENCE['J'], golden.arrays['agg'], strict=True):
        direction, _, state = step(balancer, {'a': rows[:, :5], 'b': rows[:, 5:]}, state=state)
        np.testing.assert_allclose(np.concatenate([direction['a'], direction['b']]), expected, rtol=0, atol=1e-7)


def altered(jacobian: np.ndarray, orders: tuple) -> np.ndarray:
    """Returns the sum of the gradients, each projected by the others in the order of its own."""
    total = np.zeros(jacobian.shape[1])
    for gradient, order in zip(jacobian, orders, strict=True):
        for other in order:
            gradient = (
                gradient - min(gradient @ jacobian[other], 0) / (jacobian[other] @ jacobian[other]) * jacobian[other]
            )
        total += gradient
    return total


def test_pcgrad_draws_an_order_for_every_task_in_every_step():
    jacobian = np.array(JACOBIANS['t3_d50_conflict'])
    possible = [
        altered(jacobian, orders) for orders in itertools.product([(1, 2), (2, 1)], [(0, 2), (2, 0)], [(0, 1), (1, 0)])
    ]
    balancer, found = pcgrad(seed=3), set()
    state = start(balancer, 3)
    for _ in range(60):
        direction, _, state = step(balancer, jacobian, state=state)
        errors = [np.max(np.abs(direction - each)) for each in possible]
        assert min(errors) < 1e-12
        found.add(int(np.argmin(errors)))
    assert len(found) == len(possible)


@pytest.mark.parametrize('method', [pcgrad, gradvac])
def test_orders_are_drawn_as_if_inactive_tasks_did_not_exist(method):
    rows = np.array(JACOBIANS['t5_d4_rankdef'])
    absent = rows.copy()
    absent[1] = np.nan
    balancer = method(seed=1)
    state, other = start(balancer, 5), start(balancer, 4)
    for _ in range(5):
        direction, weights, state = step(balancer, absent, state=state)
        expected, few, other = step(balancer, np.delete(rows, 1, axis=0), state=other)
        assert weights[1] == 0
        np.testing.assert_allclose(np.delete(weights, 1), few, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(direction, expected, rtol=1e-5, atol=1e-6)


def test_two_tasks_never_conflict_after_surgery():
    rows = np.random.default_rng(0).normal(size=(200, 2, 3)) * np.logspace(-3, 3, 200)[:, None, None]
    directions, _ = steps(pcgrad(), rows)
    products = np.einsum('ntd,nd->nt', rows, directions)
    sizes = np.linalg.norm(rows, axis=2) * np.linalg.norm(directions, axis=1)[:, None]
    assert np.min(products / sizes) > -1e-12


@pytest.mark.parametrize('method', [pcgrad, gradvac])
def test_opposite_gradients_cancel_and_zero_ones_do_nothing(method):
    gradient = np.array([3.0, -1.0, 2.0])
    # The task with the zero gradient is in the way of no other.
    direction, weights, _ = step(method(), np.stack([gradient, 0 * gradient, -7 * gradient]))
    np.testing.assert_allclose(direction, np.zeros(3), atol=1e-12)
    assert weights[1] == 1


def test_gradvac_reaches_its_target():
    # A target of 0.5 for all pairs, and one pair below it.
    rows = np.array([[1.0, 0.0], [0.1, 2.0]])
    balancer = gradvac(0.0, shuffle=False)
    _, weights, _ = step(balancer, rows, state=start(balancer, 2)._replace(target=np.full((2, 2), 0.5)))
    # Each altered gradient is its own plus a multiple of the other.
    for index in range(2):
        own, other = rows[index], rows[1 - index]
        vector = own + (weights[1 - index] - 1) * other
        assert vector @ other / np.linalg.norm(vector) / np.linalg.norm(other) == pytest.approx(0.5, abs=1e-12)


def test_gradvac_moves_the_targets_of_pairs_with_an_angle_only():
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [np.nan, 1.0]])
    balancer = gradvac(0.5)
    _, _, state = step(balancer, rows, state=start(balancer, 4)._replace(target=np.full((4, 4), 0.2)))
    expected = np.full((4, 4), 0.2)
    expected[[0, 1], [1, 0]] = 0.1 + 0.5 / np.sqrt(2)
    np.testing.assert_allclose(state.target, expected, rtol=1e-6)


def test_gradvac_stays_bounded_after_gradients_that_were_equal_for_long():
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    balancer = gradvac(0.5)
    # The moving average of a cosine of 1, in the limit.
    direction, _, _ = step(balancer, rows, state=start(balancer, 2)._replace(target=np.ones((2, 2))))
    assert 500 < np.linalg.norm(direction) < 3000


def test_surgery_holds_many_tasks_of_unlike_lengths_in_float32():
    rows = np.random.default_rng(0).normal(size=(100, 30)) * np.logspace(-3, 3, 100)[:, None]
    balancer = pcgrad(shuffle=False)
    signals = Signals(jnp.ones(100), jnp.ones(100, bool), jnp.asarray(rows @ rows.T, jnp.float32))
    weights, _ = jax.jit(balancer.update)(signals, balancer.init(100))
    expected = altered(rows, tuple(tuple(np.delete(np.arange(100), index)) for index in range(100)))
    assert np.linalg.norm(weights @ rows - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize('beta', [-0.1, 1.5, float('nan')])
def test_gradvac_refuses_a_rate_that_is_none(beta):
    with pytest.raises(ValueError, match='gradvac needs a beta between 0 and 1, got'):
        gradvac(beta)
