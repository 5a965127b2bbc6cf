"""IMTL-L: the gradient that it follows, and where that leads."""

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals


def test_follows_the_gradient_of_the_objective():
    balancer = balancing.imtl_l(0.1, optimizer='sgd', init_log_scale=0.3)
    losses = jnp.array([0.2, 3.0])
    state = balancer.init(2)
    weights, after = balancer.update(Signals(losses, jnp.ones(2, bool)), state)
    np.testing.assert_allclose(weights, np.exp([0.3, 0.3]), rtol=1e-6)
    gradient = jax.grad(lambda scale: jnp.sum(jnp.exp(scale) * losses - scale))(state.log_scale)
    np.testing.assert_allclose(after.log_scale, state.log_scale - 0.1 * gradient, rtol=1e-5)


def test_constant_losses_lead_to_weighted_losses_of_one():
    balancer = balancing.imtl_l(0.3, optimizer='sgd')
    losses = jnp.array([0.5, 2.0, 1.5])
    update, state = jax.jit(balancer.update), balancer.init(3)
    for _ in range(60):
        weights, state = update(Signals(losses, jnp.ones(3, bool)), state)
    np.testing.assert_allclose(weights * losses, np.ones(3), rtol=1e-3)


def test_losses_below_zero_do_not_overflow():
    balancer = balancing.imtl_l(1.0, optimizer='sgd')
    update, state = jax.jit(balancer.update), balancer.init(2)
    for _ in range(30):
        weights, state = update(Signals(jnp.array([-2.0, 1.0]), jnp.ones(2, bool)), state)
    assert np.all(np.isfinite(weights))
    assert np.all(np.isfinite(state.log_scale))
