"""Equal, fixed and scheduled weights."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals
from mmtl_jax.core.build import build


def signals(num_tasks: int) -> Signals:
    return Signals(jnp.full(num_tasks, 2.0), jnp.ones(num_tasks, bool))


@pytest.mark.parametrize('num_tasks', [1, 3])
def test_equal_is_the_sum_of_the_losses(num_tasks):
    # As LibMTL's EW and TorchJD's Sum; the mean would be 1 / T.
    balancer = balancing.equal()
    weights, _ = balancer.update(signals(num_tasks), balancer.init(num_tasks))
    np.testing.assert_array_equal(weights, np.ones(num_tasks))


def test_fixed_are_the_weights_given():
    # The preference vector of TorchJD's Constant on its three-task matrices.
    balancer = build({'name': 'fixed', 'weights': [0.1, 0.3, 0.6]}, balancing)
    weights, _ = balancer.update(signals(3), balancer.init(3))
    np.testing.assert_allclose(weights, [0.1, 0.3, 0.6], rtol=1e-7)


@pytest.mark.parametrize('weights', [[1.0, -0.5], [1.0, float('nan')], [float('inf'), 1.0]])
def test_fixed_refuses_weights_that_are_no_weights(weights):
    with pytest.raises(ValueError, match='finite and at least 0'):
        balancing.fixed(weights)


def test_scheduled_follows_each_schedule_by_the_step():
    ramp = {'init_value': 0.0, 'end_value': 1.0, 'transition_steps': 4}
    balancer = balancing.scheduled([{'name': 'linear_schedule', **ramp}, optax.cosine_decay_schedule(2.0, 3), 0.7])
    state = balancer.init(3)
    for step in range(5):
        assert state.count == step
        weights, state = balancer.update(signals(3), state)
        expected = [optax.linear_schedule(**ramp)(step), optax.cosine_decay_schedule(2.0, 3)(step), 0.7]
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-7)


def test_scheduled_counts_the_step_even_if_a_task_sits_out():
    balancer = balancing.scheduled([lambda step: step, 1.0])
    _, state = balancer.update(Signals(jnp.ones(2), jnp.array([False, False])), balancer.init(2))
    weights, _ = balancer.update(signals(2), state)
    np.testing.assert_array_equal(weights, [1, 1])


def test_scheduled_says_what_was_meant():
    with pytest.raises(ValueError, match="did you mean 'linear_schedule'"):
        balancing.scheduled([{'name': 'linear_shedule', 'init_value': 0.0}])
