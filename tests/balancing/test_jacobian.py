"""Many backward passes after one forward pass: equal to JAX's own Jacobian, with factors or without, in any chunks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing.jacobian import Factors, pullback

TASKS, ROWS = 5, 3


class Everything(nn.Module):
    """Weights that are used in all the ways that there are: once, twice, reshaped, in a loop, in a convolution."""

    @nn.compact
    def __call__(self, x):
        """Returns `[B, 8]` for `x [B, 32]`."""
        x = nn.relu(nn.Dense(16, name='once')(x))
        twice = nn.Dense(16, use_bias=False, name='twice')
        x = jnp.tanh(twice(twice(x)))
        y = nn.DenseGeneral((2, 8), name='split')(x)
        y = nn.DenseGeneral(16, axis=(-2, -1), name='merge')(y)
        y = nn.LayerNorm(name='norm')(y)
        image = nn.Conv(4, (3, 3), name='image')(y.reshape(-1, 4, 4, 1))
        y = image.reshape(len(x), -1) + jnp.tile(y, 4)
        y = nn.RNN(nn.SimpleCell(8), name='loop')(y.reshape(len(x), 8, 8))[:, -1]
        self.sow('seen', 'mean', y.mean())
        return y


@pytest.fixture(scope='module')
def case():
    x = jax.random.normal(jax.random.key(0), (ROWS, 32))
    params = jax.jit(Everything().init)(jax.random.key(1), x)['params']
    cotangents = jax.random.normal(jax.random.key(2), (TASKS, ROWS, 8))

    def function(params):
        y, aux = Everything().apply({'params': params}, x, mutable=['seen'])
        return {'y': y}, aux

    @jax.jit
    def expected(params):
        back = jax.vjp(lambda params: function(params)[0], params)[1]
        rows = jax.vmap(lambda cotangent: back({'y': cotangent})[0])(cotangents)
        return rows, function(params)

    return function, params, cotangents, *expected(params)


def close(got, expected):
    # float32, in another order of summation.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, expected)


def gramian_of(rows):
    flat = np.concatenate([np.asarray(leaf, np.float64).reshape(TASKS, -1) for leaf in jax.tree.leaves(rows)], axis=1)
    return flat @ flat.T


@pytest.mark.parametrize(('factored', 'chunk_size'), [(True, None), (True, TASKS), (True, 2), (False, 1), (False, 99)])
def test_gramian_sum_and_rows_are_those_of_the_jacobian(case, factored, chunk_size):
    function, params, cotangents, rows, results = case
    weights, everyone = jnp.arange(1.0, TASKS + 1), jnp.ones(TASKS, bool)
    kept = []

    @jax.jit
    def found(params):
        outputs, aux, pull = pullback(function, params, num_tasks=TASKS, factored=factored, chunk_size=chunk_size)
        gradients = pull({'y': cotangents})
        kept.extend(isinstance(leaf, Factors) for leaf in gradients.leaves)
        dense = () if factored else gradients.rows(everyone)
        return (outputs, aux), gradients.gramian(), gradients.combine(weights, everyone), dense

    both, gramian, direction, dense = found(params)
    close(both, results)
    np.testing.assert_allclose(gramian, gramian_of(rows), rtol=1e-4)
    close(direction, jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), rows))
    if not factored:
        close(dense, rows)
    # `once`, `split` and `merge` multiply once and meet 3 rows; what is used twice or in a loop has no factors.
    assert sum(kept) == (3 if factored else 0)


def test_a_task_that_sits_out_does_not_spoil_the_sum(case):
    function, params, cotangents, rows, _ = case
    weights, active = jnp.arange(1.0, TASKS + 1), jnp.arange(TASKS) != 2

    @jax.jit
    def found(params):
        _, _, pull = pullback(function, params, num_tasks=TASKS)
        gradients = pull({'y': cotangents.at[2].set(jnp.nan)})
        return gradients.gramian(), gradients.combine(weights, active)

    gramian, direction = found(params)
    close(direction, jax.tree.map(lambda leaf: jnp.tensordot(jnp.where(active, weights, 0), leaf, 1), rows))
    # The others' inner products are as they would be without it.
    others = np.ix_(active, active)
    np.testing.assert_allclose(np.asarray(gramian)[others], gramian_of(rows)[others], rtol=1e-4)
    assert not np.isfinite(gramian[2, 2])


def test_factors_have_no_rows(case):
    function, params, cotangents, _, _ = case
    with pytest.raises(TypeError, match='factored=False'):
        pullback(function, params, num_tasks=TASKS)[2]({'y': cotangents}).rows(jnp.ones(TASKS, bool))
