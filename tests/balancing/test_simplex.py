"""The projection onto the simplex of the active tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmtl_jax.balancing import simplex


def test_is_the_projection_of_optax_on_the_active_tasks():
    random = np.random.default_rng(0)
    values = random.normal(size=(300, 7)) * np.exp(random.normal(size=(300, 1)) * 3)
    # Ties, and points that lie on the simplex.
    values[:20] = np.round(values[:20])
    values[20:40] = random.dirichlet(np.ones(7), 20)
    active = jnp.arange(7) < 5
    with jax.enable_x64(True):
        got = jax.vmap(simplex.project, in_axes=(0, None))(jnp.where(active, values, jnp.nan), active)
        expected = jax.vmap(optax.projections.projection_simplex)(jnp.asarray(values[:, :5]))
    np.testing.assert_array_equal(got[:, 5:], 0)
    np.testing.assert_allclose(got[:, :5], expected, atol=1e-12)


def test_stays_exact_for_values_far_from_the_simplex():
    np.testing.assert_allclose(simplex.project(jnp.float32([1e6, 1e6 + 0.5, -1e6]), jnp.ones(3, bool)), [0.25, 0.75, 0])


def test_without_active_tasks_all_is_zero():
    none = jnp.zeros(3, bool)
    for function in (simplex.project, simplex.softmax, simplex.restrict):
        np.testing.assert_array_equal(function(jnp.ones(3), none), np.zeros(3))
    np.testing.assert_array_equal(simplex.extend(jnp.zeros(3), none, jnp.arange(3.0)), np.arange(3.0))


def test_active_tasks_share_what_they_had():
    weights, active = jnp.array([1.0, 3.0, 5.0]), jnp.array([True, True, False])
    np.testing.assert_allclose(simplex.restrict(weights, active), [0.25, 0.75, 0])
    np.testing.assert_allclose(simplex.extend(jnp.array([0.5, 0.5, 0.0]), active, weights), [2, 2, 5])
    np.testing.assert_allclose(simplex.restrict(jnp.array([0.0, 0.0, 5.0]), active), [0.5, 0.5, 0])
