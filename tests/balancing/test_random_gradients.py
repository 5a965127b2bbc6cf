"""Random gradient weighting."""

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.balancing import Signals, random
from tests.balancing.golden import JACOBIANS, goldens
from tests.balancing.replay import step


def test_equals_the_published_implementation_for_the_same_random_numbers(monkeypatch):
    for golden in goldens('torchjd08', 'Random'):
        monkeypatch.setattr(jax.random, 'normal', lambda *_, numbers=golden.arrays['z']: jnp.asarray(numbers))
        _, weights, _ = step(random(), JACOBIANS[golden.target])
        np.testing.assert_allclose(weights, golden.arrays['weights'], rtol=1e-12)


def test_draws_normal_numbers_anew_in_every_step():
    balancer, active = random(seed=4), jnp.array([True, False, True, True])
    signals = Signals(jnp.ones(4), active, jnp.eye(4))

    def draw(state, _):
        weights, state = balancer.update(signals, state)
        return state, weights

    _, weights = jax.jit(lambda: jax.lax.scan(draw, balancer.init(4), length=4000))()
    np.testing.assert_array_equal(weights[:, 1], np.zeros(4000))
    np.testing.assert_allclose(np.sum(weights, axis=1), np.ones(4000), rtol=1e-5)
    differences = np.log(weights[:, 0]) - np.log(weights[:, 3])
    # Of two standard normal numbers: mean 0, variance 2; the tolerances are four standard deviations.
    assert abs(np.mean(differences)) < 0.09
    assert abs(np.var(differences) - 2) < 0.18


def test_needs_no_losses_and_draws_as_if_inactive_tasks_did_not_exist():
    rows = np.array(JACOBIANS['t3_d10'])
    direction, _, _ = step(random(seed=2), rows)
    absent, _, _ = step(random(seed=2), np.insert(rows, 0, np.nan, axis=0))
    other, _, _ = step(random(seed=3), rows)
    np.testing.assert_allclose(direction, absent, rtol=1e-6)
    assert np.any(direction != other)
