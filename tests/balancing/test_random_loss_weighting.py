"""Random loss weighting."""

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals
from tests.balancing.golden import goldens

ALL = jnp.ones(4, bool)


def draws(balancer, active=ALL, steps=2000):
    def step(state, _):
        weights, state = balancer.update(Signals(jnp.ones(4), active), state)
        return state, weights

    return jax.jit(lambda: jax.lax.scan(step, balancer.init(4), length=steps)[1])()


def test_a_softmax_of_normal_numbers_new_at_every_step():
    weights = draws(balancing.random_loss_weighting())
    np.testing.assert_allclose(jnp.sum(weights, axis=1), np.ones(2000), rtol=1e-5)
    # The standard error of the mean is about 0.004; of the spread of the log-odds, sqrt(2) in theory, about 0.02.
    np.testing.assert_allclose(jnp.mean(weights, axis=0), np.full(4, 0.25), atol=0.02)
    log_odds = jnp.log(weights[:, 0] / weights[:, 1])
    np.testing.assert_allclose(jnp.std(log_odds), np.sqrt(2), atol=0.1)
    assert not np.any(weights[0] == weights[1])


def test_the_softmax_is_that_of_libmtl():
    (golden,) = goldens('libmtl', 'RLW')
    z, head = golden.arrays['z'], golden.arrays['head']
    np.testing.assert_allclose(jax.nn.softmax(z), head, rtol=1e-6)
    assert balancing.random_loss_weighting().heads == 'weighted'


def test_inactive_tasks_get_nothing_and_the_others_all():
    weights = draws(balancing.random_loss_weighting(seed=1), ALL.at[2].set(False))
    assert not np.any(weights[:, 2])
    np.testing.assert_allclose(jnp.sum(weights, axis=1), np.ones(2000), rtol=1e-5)


def test_the_seed_is_all_that_differs():
    first, again, other = (draws(balancing.random_loss_weighting(seed=seed), steps=3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)
