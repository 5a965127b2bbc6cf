"""Dynamic weight average over windows of several steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals
from tests.balancing.golden import SEQUENCE


def run(balancer, losses, active=None):
    """Returns the weights of every step."""
    losses = np.asarray(losses, np.float32)
    active = np.ones(losses.shape, bool) if active is None else np.asarray(active)
    state, weights = balancer.init(losses.shape[1]), []
    for row, here in zip(losses, active, strict=True):
        weight, state = balancer.update(Signals(jnp.asarray(row), jnp.asarray(here)), state)
        weights.append(weight)
    return np.array(weights)


def test_ratios_of_the_means_of_two_windows():
    losses = SEQUENCE['losses'][:9]
    weights = run(balancing.dwa(temperature=0.5, window=3), losses)
    np.testing.assert_array_equal(weights[:6], np.ones((6, 3)))
    powers = np.exp(losses[3:6].mean(axis=0) / losses[:3].mean(axis=0) / 0.5)
    np.testing.assert_allclose(weights[6:], np.tile(3 * powers / powers.sum(), (3, 1)), rtol=1e-5)


def test_a_task_counts_the_steps_that_it_was_active_in():
    losses = [[4, 9], [2, 4], [8, 2], [1, 2]]
    weights = run(balancing.dwa(window=1), losses, [[True, False], [True, True], [True, True], [True, True]])
    # At the third step only the first task has two windows behind it.
    powers = np.exp(np.array([2 / 4, 1.0]) / 2)
    np.testing.assert_allclose(weights[2], 2 * powers / powers.sum(), rtol=1e-6)
    powers = np.exp(np.array([8 / 2, 2 / 4]) / 2)
    np.testing.assert_allclose(weights[3], 2 * powers / powers.sum(), rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match='temperature of dwa must be positive, got 0'):
        balancing.dwa(temperature=0)
    with pytest.raises(ValueError, match='at least one step, got 0'):
        balancing.dwa(window=0)
