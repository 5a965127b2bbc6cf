"""FAMO beyond its recorded trajectories: what it does after the step, and when it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals

ALL = jnp.ones(3, bool)
LOSSES = jnp.array([0.5, 2.0, 4.0])


def test_the_first_weights_take_all_losses_down_at_one_rate():
    balancer = balancing.famo()
    weights, _ = balancer.update(Signals(LOSSES, ALL), balancer.init(3))
    np.testing.assert_allclose(weights, (1 / LOSSES) / jnp.sum(1 / LOSSES), rtol=1e-6)


def test_the_task_that_fell_least_gains():
    balancer = balancing.famo(0.1, weight_decay=0.0)
    _, state = balancer.update(Signals(LOSSES, ALL), balancer.init(3))
    state = balancer.after(LOSSES * jnp.array([0.5, 0.9, 0.8]), ALL, state)
    assert np.argmax(state.logits) == 1
    assert np.argmin(state.logits) == 0


def test_without_the_call_after_the_step_nothing_is_learned():
    balancer = balancing.famo()
    state = balancer.init(3)
    _, new = balancer.update(Signals(LOSSES, ALL), state)
    jax.tree.map(np.testing.assert_array_equal, (new.logits, new.optimizer), (state.logits, state.optimizer))
    # Nor does a second call for the same step count.
    once = balancer.after(0.5 * LOSSES**2, ALL, new)
    jax.tree.map(np.testing.assert_array_equal, balancer.after(LOSSES, ALL, once), once)


def test_a_task_at_its_minimum_sits_out_and_one_below_raises():
    balancer = balancing.famo(min_losses=[0.5, -1.0, 0.0])
    weights, state = balancer.update(Signals(LOSSES, ALL), balancer.init(3))
    assert weights[0] == 0
    np.testing.assert_allclose(weights[1:], np.array([1 / 3, 1 / 4]) / (1 / 3 + 1 / 4), rtol=1e-6)
    after = balancer.after(0.9 * LOSSES, jnp.array([False, True, True]), state)
    assert after.logits[0] == 0
    below = LOSSES.at[0].set(0.25)
    with pytest.raises(ValueError, match=r'famo needs losses that are not negative, got -0\.25 for task 0'):
        balancing.aggregate(balancer, jnp.ones((3, 2)), below)
    _, under_jit, _ = jax.jit(lambda losses: balancing.aggregate(balancer, jnp.ones((3, 2)), losses))(below)
    np.testing.assert_allclose(under_jit, weights, rtol=1e-6)


def test_a_task_that_was_absent_before_the_step_does_not_move():
    balancer = balancing.famo()
    _, state = balancer.update(Signals(LOSSES, ALL), balancer.init(3))
    state = balancer.after(0.9 * LOSSES, ALL, state)
    _, new = balancer.update(Signals(LOSSES, ALL.at[2].set(False)), state)
    new = balancer.after(LOSSES * jnp.array([0.9, 0.5, 0.1]), ALL, new)
    assert new.logits[2] == state.logits[2]
    assert new.logits[1] < state.logits[1]


def test_the_next_batch_serves_as_well_where_all_batches_are_the_same():
    """Three tasks with optima of their own, and gradient descent on the weighted sum: no losses but those of theta."""
    optima = jnp.array([[1.0, 0.0], [-1.0, 2.0], [0.5, -3.0]])

    def losses_at(theta):
        return 0.1 + jnp.sum((theta[None] - optima) ** 2, axis=1)

    def weights_of(balancer, steps=20):
        def step(carry, _):
            theta, state = carry
            jacobian = jax.jacobian(losses_at)(theta)
            direction, weights, state = balancing.aggregate(balancer, jacobian, losses_at(theta), state)
            theta = theta - 0.1 * direction
            if balancer.after is not None:
                state = balancer.after(losses_at(theta), ALL, state)
            return (theta, state), weights

        return jax.lax.scan(step, (jnp.zeros(2), balancer.init(3)), length=steps)[1]

    same, following = weights_of(balancing.famo(0.1)), weights_of(balancing.famo(0.1, batch='next'))
    assert np.ptp(same, axis=0).min() > 0.05
    np.testing.assert_allclose(following, same, rtol=1e-6)


def test_the_next_batch_of_a_task_is_the_next_that_labels_it():
    balancer = balancing.famo(0.1, batch='next')
    assert balancer.after is None
    _, first = balancer.update(Signals(LOSSES, ALL), balancer.init(3))
    _, absent = balancer.update(Signals(0.9 * LOSSES, ALL.at[2].set(False)), first)
    assert absent.logits[2] == first.logits[2]
    assert absent.before[2] == LOSSES[2]
    _, back = balancer.update(Signals(LOSSES * jnp.array([0.9, 0.9, 0.1]), ALL), absent)
    assert back.logits[2] < absent.logits[2]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"one of the batches \['same', 'next'\], got 'last'"):
        balancing.famo(batch='last')
    with pytest.raises(ValueError, match=r'rates of at least 0, got learning_rate=-1\.0'):
        balancing.famo(-1.0)
    with pytest.raises(ValueError, match='min_losses needs one entry per task: got 2 for 3 tasks'):
        balancing.famo(min_losses=[0.0, 0.0]).init(3)
