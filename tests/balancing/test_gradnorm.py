"""GradNorm against the published implementation and the gradient of its objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing import gradnorm
from tests.balancing.golden import SEQUENCE, goldens
from tests.balancing.replay import assert_sequence, on_sequence, start, step


@pytest.mark.parametrize('alpha', [1.5, 0.5])
def test_follows_the_published_trajectory(alpha):
    balancer = gradnorm(alpha, learning_rate=0.1, optimizer='sgd', relative=False)
    assert_sequence(on_sequence(balancer), 'libmtl', 'GradNorm', f'alpha={alpha},SGD lr=0.1', rtol=1e-12)
    (golden,) = goldens('libmtl', 'GradNorm', f'alpha={alpha},SGD lr=0.1', 's3')
    state = start(balancer, 3)
    for k in range(5):
        # Theirs start at 1, which the softmax does not see.
        np.testing.assert_allclose(state.logits, golden.arrays['param'][k] - 1, rtol=1e-10, atol=1e-14)
        _, _, state = step(balancer, SEQUENCE['J'][k], SEQUENCE['losses'][k], state)


@pytest.mark.parametrize('relative', [True, False])
def test_follows_the_gradient_of_the_objective(relative):
    balancer = gradnorm(0.7, learning_rate=1.0, optimizer='sgd', relative=relative)
    rows = np.random.default_rng(0).normal(size=(3, 5)) * np.array([[0.1], [1.0], [5.0]])
    losses, first = np.array([0.5, 1.0, 2.0]), np.array([1.0, 1.5, 2.0])
    lengths = np.linalg.norm(rows, axis=1)

    def objective(logits):
        sizes = 3 * jax.nn.softmax(logits) * lengths
        rates = losses / first / np.mean(losses / first)
        target = jax.lax.stop_gradient(jnp.mean(sizes)) * rates**0.7
        return jnp.sum(jnp.abs(sizes - target))

    logits = np.array([0.2, -0.1, 0.4])
    state = start(balancer, 3)._replace(logits=logits, first_losses=first, seen=np.ones(3, bool))
    _, weights, state = step(balancer, rows, losses, state)
    with jax.enable_x64(True):
        slope = np.asarray(jax.jit(jax.grad(objective))(logits)) / (np.mean(lengths) if relative else 1.0)
    np.testing.assert_allclose(weights, 3 * np.exp(logits) / np.exp(logits).sum(), rtol=1e-12)
    np.testing.assert_allclose(state.logits, logits - slope, rtol=1e-10)


def test_brings_the_lengths_to_each_other():
    # With alpha = 0 the target is one length for all, whatever the losses do.
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.5]])
    balancer = gradnorm(0.0, learning_rate=0.02)
    state = start(balancer, 3)
    for _ in range(200):
        _, weights, state = step(balancer, rows, np.ones(3), state)
    sizes = weights * np.linalg.norm(rows, axis=1)
    assert np.sum(weights) == pytest.approx(3, rel=1e-5)
    # Adam goes on stepping about the minimum of an absolute value.
    np.testing.assert_allclose(sizes, np.full(3, np.mean(sizes)), rtol=0.1)


def test_a_task_that_comes_late_records_its_first_loss_and_waits():
    balancer = gradnorm(learning_rate=0.1, optimizer='sgd')
    rows = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    state = start(balancer, 3)
    absent = np.array([1.0, 2.0, np.nan])
    for _ in range(2):
        _, _, state = step(balancer, rows, absent, state)
    np.testing.assert_array_equal(state.seen, [True, True, False])
    before = state.logits
    _, _, state = step(balancer, rows, np.array([1.0, 2.0, 7.0]), state)
    np.testing.assert_array_equal(state.first_losses, [1, 2, 7])
    assert state.logits[2] == before[2] == 0
    assert np.all(state.logits[:2] != before[:2])


def test_losses_that_are_not_positive():
    balancer = gradnorm(learning_rate=0.1, optimizer='sgd')
    rows = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    state = start(balancer, 3)
    for losses in ([0.0, -1.0, 1.0], [1.0, -2.0, -1.0], [0.0, 0.0, 0.0]):
        _, weights, state = step(balancer, rows, np.array(losses), state)
        assert np.all(np.isfinite(weights))
        assert np.all(np.isfinite(state.logits))


def test_bad_arguments():
    with pytest.raises(ValueError, match='gradnorm needs an alpha of at least 0, got -1'):
        gradnorm(-1)
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        gradnorm(optimizer='adm')
