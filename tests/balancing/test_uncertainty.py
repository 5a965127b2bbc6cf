"""Uncertainty weighting against the published implementations, its gradient and its fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals

# What TorchJD 0.17 (s = 0) and LibMTL 4336804 (s = -0.5) compute in float64 with SGD of rate .1 on these losses:
# the log-variances before the steps 1 and 5, and the weights at the steps 0, 1 and 5.
GOLDEN_LOSSES = [
    [0.6010257830175955, 1.6019810655232471, 2.546966529430312],
    [0.5731131343946635, 1.3777538600582189, 2.072479309864826],
    [0.5928952755182496, 1.3003818469634096, 1.9584093907329994],
    [0.5128663708200152, 1.3111128507539305, 1.6663497703449786],
    [0.57271186199038, 1.1259345160698457, 1.4569305526751268],
    [0.5554736328267257, 1.1006089992777528, 1.3038098366624813],
]
GOLDENS = {
    'TorchJD': (
        0.0,
        [
            [-0.019948710849120227, 0.030099053276162357, 0.0773483264715156],
            [-0.10151258981818033, 0.0732320981069988, 0.19163103735902687],
        ],
        [
            [0.5, 0.5, 0.5],
            [0.5100745080540677, 0.48517470624985204, 0.46278369891198967],
            [0.5534219266335417, 0.46469254823476136, 0.41280571603816574],
        ],
    ),
    'LibMTL': (
        -0.5,
        [
            [-0.5004538003649845, -0.41793898710064836, -0.34003810535834805],
            [-0.5139327026414404, -0.2550923958005845, -0.08851916359657104],
        ],
        [
            [0.8243606353500641, 0.8243606353500641, 0.8243606353500641],
            [0.8247348154023656, 0.7594140017375496, 0.7025005638075051],
            [0.8359265923734691, 0.6452904298079843, 0.5462775948483755],
        ],
    ),
}


def run(balancer, losses):
    """Returns weights and log-variances before each step."""
    state, weights, log_variances = balancer.init(len(losses[0])), [], []
    update = jax.jit(balancer.update)
    for row in losses:
        log_variances.append(state.log_variance)
        weight, state = update(Signals(jnp.asarray(row), jnp.ones(len(row), bool)), state)
        weights.append(weight)
    return np.array(weights), np.array(log_variances)


@pytest.mark.parametrize('library', GOLDENS)
def test_equals_the_published_implementations(library):
    start, log_variance, weight = GOLDENS[library]
    with jax.enable_x64(True):
        balancer = balancing.uncertainty(0.1, optimizer='sgd', init_log_variance=start)
        weights, log_variances = run(balancer, np.array(GOLDEN_LOSSES))
    np.testing.assert_allclose(log_variances[[1, 5]], log_variance, rtol=1e-10)
    np.testing.assert_allclose(weights[[0, 1, 5]], weight, rtol=1e-10)


@pytest.mark.parametrize(('kind', 'factor'), [('regression', 0.5), ('classification', 1.0)])
def test_follows_the_gradient_of_the_objective(kind, factor):
    balancer = balancing.uncertainty(0.1, optimizer='sgd', kinds=kind, init_log_variance=0.3)
    losses = jnp.array([0.2, 3.0])

    def objective(log_variance):
        return jnp.sum(factor * jnp.exp(-log_variance) * losses + log_variance / 2)

    state = balancer.init(2)
    weights, after = balancer.update(Signals(losses, jnp.ones(2, bool)), state)
    np.testing.assert_allclose(weights, factor * np.exp([-0.3, -0.3]), rtol=1e-6)
    expected = state.log_variance - 0.1 * jax.grad(objective)(state.log_variance)
    np.testing.assert_allclose(after.log_variance, expected, rtol=1e-6)


def test_constant_losses_lead_to_weights_of_one_half_over_the_loss():
    # Where the gradient of s is zero, weight times loss is 1/2, whatever the likelihood and the scale of the loss.
    balancer = balancing.uncertainty(0.5, optimizer='sgd', kinds=['regression', 'classification', 'regression'])
    losses = np.array([0.5, 2.0, 1.5])
    weights, _ = run(balancer, [losses] * 60)
    np.testing.assert_allclose(weights[-1] * losses, np.full(3, 0.5), rtol=1e-3)


def test_each_task_has_its_own_optimizer_state():
    balancer = balancing.uncertainty(0.1)
    state = balancer.init(2)
    for step in range(3):
        _, state = balancer.update(Signals(jnp.array([2.0, 2.0]), jnp.array([True, step == 0])), state)
    once, _ = balancer.update(Signals(jnp.array([2.0, 2.0]), jnp.ones(2, bool)), state)
    counts = [leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.dtype == jnp.int32]
    np.testing.assert_array_equal(counts[0], [3, 1])
    # Adam's first step has the size of the learning rate.
    np.testing.assert_allclose(state.log_variance[1], 0.1, rtol=1e-5)
    assert once[0] < once[1]


def test_any_optax_optimizer_and_schedule():
    balancer = balancing.uncertainty(optax.linear_schedule(0.1, 0.0, 2), optimizer='rmsprop')
    assert np.all(np.isfinite(run(balancer, [[1.0, 4.0]] * 3)[0]))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"kinds \['classification', 'regression'\], got 'poisson'"):
        balancing.uncertainty(kinds=['regression', 'poisson'])
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        balancing.uncertainty(optimizer='adm')
