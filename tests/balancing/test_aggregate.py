"""`aggregate`: from the tasks' gradients to one direction, in anybody's training loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing.aggregate import combine
from mmtl_jax.balancing.base import Balancer, Rows, from_weighting
from mmtl_jax.balancing.gramian import inner_products

TREE = {
    'kernel': jax.random.normal(jax.random.key(0), (3, 4, 5)),
    'bias': jax.random.normal(jax.random.key(1), (3, 5)),
    'scale': jnp.array([0.5, -1.0, 2.0]),
}
FLAT = jnp.concatenate([leaf.reshape(3, -1) for leaf in jax.tree.leaves(TREE)], axis=1)


def flat(direction):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(direction)])


def unit() -> Balancer:
    """Returns a balancer that normalises every gradient."""
    return from_weighting(lambda gramian, active: jax.lax.rsqrt(jnp.where(active, jnp.diagonal(gramian), 1.0)))


def signs() -> Balancer:
    """Returns a balancer whose direction is no combination of the gradients, and which counts its steps."""

    def update(signals, state):
        return Rows.summed(jax.tree.map(jnp.sign, signals.jacobian), signals), state + 1

    def init(num_tasks, gradient):
        assert num_tasks == 3
        assert jax.tree.map(lambda leaf: leaf.shape, gradient) == {'kernel': (4, 5), 'bias': (5,), 'scale': ()}
        return jnp.zeros((), jnp.int32)

    return Balancer(init=init, update=update, needs='jacobian')


def test_a_tree_and_its_flat_array_agree():
    assert set(TREE) == {'kernel', 'bias', 'scale'}
    direction, weights, _ = jax.jit(lambda tree: balancing.aggregate(unit(), tree))(TREE)
    assert jax.tree.map(jnp.shape, direction) == {'kernel': (4, 5), 'bias': (5,), 'scale': ()}
    np.testing.assert_allclose(weights, 1 / np.linalg.norm(FLAT, axis=1), rtol=1e-6)
    other, flat_weights, _ = balancing.aggregate(unit(), FLAT)
    np.testing.assert_allclose(weights, flat_weights, rtol=1e-6)
    np.testing.assert_allclose(flat(direction), other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other, np.asarray(FLAT).T @ np.asarray(weights), rtol=1e-5, atol=1e-6)


def test_equal_is_the_sum_and_numpy_will_do():
    direction, weights, state = balancing.aggregate(balancing.equal(), np.asarray(FLAT), [1, 2, 3])
    np.testing.assert_array_equal(weights, np.ones(3))
    np.testing.assert_allclose(direction, np.sum(FLAT, axis=0), rtol=1e-5, atol=1e-6)
    assert state == ()


def test_rows_and_the_state():
    direction, rows, state = balancing.aggregate(signs(), TREE)
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(flat(direction), np.sign(FLAT).sum(axis=0))
    assert balancing.aggregate(signs(), TREE, state=state)[-1] == 2


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf, 1e25], ids=['nan', 'inf', 'square beyond float32'])
def test_a_bad_gradient_sits_out(bad):
    spoilt = {**TREE, 'bias': TREE['bias'].at[1, 2].set(bad)}
    direction, weights, _ = balancing.aggregate(unit(), spoilt)
    without, others, _ = balancing.aggregate(unit(), jax.tree.map(lambda leaf: leaf[jnp.array([0, 2])], TREE))
    np.testing.assert_allclose(weights, [others[0], 0, others[1]], rtol=1e-6)
    np.testing.assert_allclose(flat(direction), flat(without), rtol=1e-5, atol=1e-6)
    direction, rows, _ = balancing.aggregate(signs(), spoilt)
    assert all(np.all(leaf[1] == 0) for leaf in jax.tree.leaves(rows.rows))
    np.testing.assert_array_equal(rows.weights, [1, 0, 1])
    np.testing.assert_array_equal(flat(direction), np.sign(FLAT[0]) + np.sign(FLAT[2]))


def test_a_bad_loss_sits_out():
    _, weights, _ = balancing.aggregate(balancing.equal(), FLAT, jnp.array([1.0, jnp.nan, jnp.inf]))
    np.testing.assert_array_equal(weights, [1, 0, 0])


def test_splits():
    """A balancer with two splits sees the products across them, and weighs each."""
    seen = {}

    def update(signals, state):
        seen.update(gramian=signals.gramian, active=signals.active)
        return jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), state

    balancer = Balancer(init=lambda num_tasks: (), update=update, needs='gramian', splits=2)
    halves = jnp.stack([FLAT, 1 - FLAT]).at[1, 2, 0].set(jnp.nan)
    direction, _, _ = balancing.aggregate(balancer, {'all': halves})
    np.testing.assert_array_equal(seen['active'], [True, True, False])
    np.testing.assert_allclose(seen['gramian'][0, 1, :2, :2], FLAT[:2] @ (1 - FLAT[:2]).T, rtol=1e-5, atol=1e-5)
    assert not np.any(seen['gramian'][:, :, 2])
    assert not np.any(seen['gramian'][:, :, :, 2])
    expected = 1 * FLAT[0] + 2 * FLAT[1] + 4 * (1 - FLAT[0]) + 5 * (1 - FLAT[1])
    np.testing.assert_allclose(direction['all'], expected, rtol=1e-5, atol=1e-5)


def test_half_precision_gradients_have_a_float32_gramian():
    half = FLAT.astype(jnp.bfloat16)
    gramian = inner_products({'a': half})
    assert gramian.dtype == jnp.float32
    exact = np.asarray(half, np.float64) @ np.asarray(half, np.float64).T
    np.testing.assert_allclose(gramian, exact, rtol=1e-5, atol=1e-5)
    assert combine(jnp.ones(3), {'a': half})['a'].dtype == jnp.bfloat16


def test_bad_input():
    with pytest.raises(ValueError, match='weighs tasks by their losses'):
        balancing.aggregate(balancing.equal(), FLAT)
    with pytest.raises(ValueError, match=r'shape \(3,\) of the leading axes of the Jacobian, got \(2,\)'):
        balancing.aggregate(unit(), FLAT, jnp.ones(2))
    with pytest.raises(ValueError, match=r'leading axes \[T, ...\], got \[\(2,\), \(3,\)\]'):
        balancing.aggregate(unit(), {'a': FLAT, 'b': FLAT[:2]})
    with pytest.raises(ValueError, match=r'leading axes \[3, T, ...\], got \[\(2, 3\)\]'):
        balancing.aggregate(unit()._replace(splits=3), jnp.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="heads get 'own' or 'weighted' gradients, got 'all'"):
        from_weighting(unit, heads='all')
