"""Geometric mean, smooth Tchebycheff, COSMOS and PBI: derivatives of what they claim to minimise, and their corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals

LOSSES = jnp.array([0.3, 2.0, 1.1])
PREFERENCE = np.array([0.2, 0.5, 0.3], np.float32)


def weights_of(balancer, losses, active=None):
    losses = jnp.asarray(losses)
    active = jnp.ones(len(losses), bool) if active is None else jnp.asarray(active)
    return balancer.update(Signals(losses, active), balancer.init(len(losses)))[0]


def geometric_mean(losses):
    return jnp.prod(losses) ** (1 / 3)


def smooth_tchebycheff(losses):
    return 0.2 * jnp.log(jnp.sum(jnp.exp(PREFERENCE * (losses - 0.1) / 0.2)))


def cosmos(losses):
    return PREFERENCE @ losses - 2 * PREFERENCE @ losses / jnp.linalg.norm(PREFERENCE) / jnp.linalg.norm(losses)


def boundary_intersection(losses):
    ray = PREFERENCE / jnp.linalg.norm(PREFERENCE)
    along = ray @ (losses - 0.1)
    return along + 5 * jnp.linalg.norm(losses - 0.1 - along * ray)


@pytest.mark.parametrize(
    ('balancer', 'function'),
    [
        (balancing.gls(), geometric_mean),
        (balancing.stch(0.2, weights=PREFERENCE, reference=0.1), smooth_tchebycheff),
        (balancing.cosmos(weights=PREFERENCE), cosmos),
        (balancing.pbi(weights=PREFERENCE, reference=[0.1] * 3), boundary_intersection),
    ],
)
def test_weights_are_the_derivatives(balancer, function):
    np.testing.assert_allclose(weights_of(balancer, LOSSES), jax.grad(function)(LOSSES), rtol=1e-5)


def test_small_mu_leaves_the_greatest_loss():
    np.testing.assert_allclose(weights_of(balancing.stch(1e-3), LOSSES), [0, 1 / 3, 0], atol=1e-6)


def test_stch_with_a_nadir_step_by_step():
    """One warm-up step, two of measuring; a task that came later is still weighted 1 / L."""
    balancer = balancing.stch(0.5, warmup_steps=1, nadir_steps=2)
    losses = np.array([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0], [0.5, 4.0], [1.0, 5.0]], np.float32)
    state, seen = balancer.init(2), []
    for step, row in enumerate(losses):
        active = jnp.array([True, step != 0])
        weights, state = balancer.update(Signals(jnp.asarray(row), active), state)
        seen.append(weights)
    np.testing.assert_allclose(seen[0], [1 / 9, 0], rtol=1e-6)
    np.testing.assert_allclose(seen[1:3], 1 / losses[1:3], rtol=1e-6)
    # The first task alone has its nadir, 2: T = 1 and its share is 1.
    np.testing.assert_allclose(seen[3], 1 / losses[3], rtol=1e-6)
    # Both have: the second one's is the mean of 6 and 4.
    powers = np.array([(1.0 / 2) ** 2, (5.0 / 5) ** 2])
    np.testing.assert_allclose(seen[4], 2 * powers / powers.sum() / losses[4], rtol=1e-6)


@pytest.mark.parametrize('balancer', [balancing.gls(), balancing.stch(nadir_steps=1)], ids=['gls', 'stch'])
def test_a_loss_of_zero_sits_out_and_a_negative_one_raises(balancer):
    without = weights_of(balancer, LOSSES, [True, False, True])
    np.testing.assert_allclose(weights_of(balancer, LOSSES.at[1].set(0.0)), without, rtol=1e-6)
    negative = LOSSES.at[1].set(-0.5)
    with pytest.raises(ValueError, match=r'needs losses that are not negative, got -0\.5 for task 1'):
        weights_of(balancer, negative)
    with pytest.raises(ValueError, match='not negative'):
        balancing.aggregate(balancer, jnp.ones((3, 2)), negative)
    # What an inactive task shows is nobody's business.
    np.testing.assert_allclose(weights_of(balancer, negative, [True, False, True]), without, rtol=1e-6)
    under_jit = jax.jit(lambda losses: weights_of(balancer, losses))(negative)
    np.testing.assert_allclose(under_jit, without, rtol=1e-6)


def test_cosmos_without_losses_is_linear():
    np.testing.assert_array_equal(weights_of(balancing.cosmos(weights=PREFERENCE), jnp.zeros(3)), PREFERENCE)


@pytest.mark.parametrize('scale', [1e-20, 1.0, 1e20])
def test_pbi_on_its_ray_has_no_distance_to_lose(scale):
    ray = PREFERENCE / np.linalg.norm(PREFERENCE)
    weights = weights_of(balancing.pbi(weights=PREFERENCE), scale * PREFERENCE)
    np.testing.assert_allclose(weights, ray, rtol=1e-5)


@pytest.mark.parametrize('scale', [1e-15, 1e20])
def test_pbi_has_weights_of_any_scale_of_losses(scale):
    balancer = balancing.pbi(weights=PREFERENCE)
    np.testing.assert_allclose(weights_of(balancer, scale * LOSSES), weights_of(balancer, LOSSES), rtol=1e-4)


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: balancing.stch(0.0), 'mu of stch must be positive, got 0.0'),
        (lambda: balancing.stch(nadir_steps=-1), 'numbers of steps of at least 0'),
        (lambda: balancing.stch(nadir_steps=2, weights=[1.0]), 'give one or the other'),
        (lambda: balancing.stch(nadir_steps=2, reference=0.1), 'give one or the other'),
        (lambda: balancing.stch(warmup_steps=2), 'give nadir_steps beside warmup_steps=2'),
        (lambda: balancing.stch(weights=[1.0, 0.0]), r'stch weights must be finite and positive, got \[1.0, 0.0\]'),
        (lambda: balancing.cosmos(penalty=-1.0), 'penalty of cosmos must be at least 0, got -1.0'),
        (lambda: balancing.cosmos(weights=[float('nan')]), 'cosmos weights must be finite and positive'),
        (lambda: balancing.pbi(theta=-1.0), 'theta of pbi must be at least 0, got -1.0'),
        (lambda: balancing.pbi(reference=[0.0, 0.0]).init(3), 'pbi reference needs one entry per task: got 2 for 3'),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
