"""Many backward passes after one forward pass: equal to JAX's own Jacobian, with factors or without, in any chunks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing.gramian import FEW
from mmtl_jax.balancing.jacobian import Factors, Gradients, pullback
from mmtl_jax.balancing.products import find_products

TASKS, ROWS = 5, 3
SINGLE = jax.tree.structure(0)


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
        deep = nn.Conv(16, (3, 3), strides=4, name='deep')(image)
        large = nn.Conv(4, (3, 3), name='large')(jnp.tile(image, (1, 4, 4, 1)))
        y = image.reshape(len(x), -1) + jnp.tile(y, 4) + jnp.tile(deep.reshape(len(x), -1), 4)
        y += large.mean(axis=(1, 2, 3))[:, None]
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
    # `once`, `split`, `merge` and `deep` multiply once and meet 3 rows; what is used twice or in a loop has no factors.
    assert sum(kept) == (4 if factored else 0)


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


@pytest.mark.parametrize('num_tasks', [2, FEW, FEW + 1])
def test_a_few_rows_and_more_of_them_have_the_same_products_and_sums(num_tasks):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(5, 6)).astype(np.float32)
    cotangents = random.normal(size=(num_tasks, 5, 7)).astype(np.float32)
    rows = np.einsum('rm,trn->tmn', inputs, cotangents)
    weights, active = np.arange(1.0, num_tasks + 1), np.arange(num_tasks) != 1
    flat = rows.reshape(num_tasks, -1).astype(np.float64)
    expected = np.tensordot(weights[active], rows[active], 1)

    def leaves():
        return jnp.asarray(rows), Factors(jnp.asarray(inputs), jnp.asarray(cotangents), (6, 7), (0, 1))

    for leaf in leaves():
        # float32 sums of 42 numbers in another order.
        np.testing.assert_allclose(Gradients((leaf,), SINGLE).gramian(), flat @ flat.T, rtol=1e-5, atol=1e-5)
    rows[1, 2, 3] = cotangents[1, 4, 3] = np.nan
    for leaf in leaves():
        found = Gradients((leaf,), SINGLE).combine(jnp.asarray(weights, jnp.float32), jnp.asarray(active))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_factors_have_no_rows(case):
    function, params, cotangents, _, _ = case
    with pytest.raises(TypeError, match='factored=False'):
        pullback(function, params, num_tasks=TASKS)[2]({'y': cotangents}).rows(jnp.ones(TASKS, bool))


# Axes, shapes of the input and the weights, strides, padding, what else.
CONVOLUTIONS = {
    'one dimension': ('NWC WIO NWC', (2, 90, 3), (4, 3, 5), (1,), 'SAME', {}),
    'strides': ('NHWC HWIO NHWC', (2, 21, 20, 3), (3, 3, 3, 4), (2, 1), 'SAME', {}),
    'other axes': ('NCHW OIHW CNHW', (2, 3, 12, 11), (4, 3, 3, 2), (1, 1), 'VALID', {}),
    'three dimensions': ('NDHWC DHWIO NDHWC', (1, 6, 5, 4, 2), (2, 2, 2, 2, 3), (1, 1, 1), 'SAME', {}),
    'dilated and cropped': (
        'NHWC HWIO NHWC', (2, 18, 18, 3), (3, 2, 3, 4), (1, 1), ((2, -1), (0, 3)), {'rhs_dilation': (2, 3)},
    ),
    'in groups': ('NHWC HWIO NHWC', (2, 10, 10, 4), (3, 3, 2, 4), (1, 1), 'SAME', {'feature_group_count': 2}),
    'transposed': ('NHWC HWIO NHWC', (2, 6, 6, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)), {'lhs_dilation': (2, 2)}),
}  # fmt: skip
NO_PRODUCTS = ('in groups', 'transposed')


def convolution(name):
    """Returns an input, weights, and the convolution as a function of both."""
    axes, shape, window, strides, padding, options = CONVOLUTIONS[name]
    keys = jax.random.split(jax.random.key(0))
    options = {'window_strides': strides, 'padding': padding, 'dimension_numbers': tuple(axes.split()), **options}
    function = functools.partial(jax.lax.conv_general_dilated, **options)
    return jax.random.normal(keys[0], shape), jax.random.normal(keys[1], window), function


@pytest.mark.parametrize('name', [name for name in CONVOLUTIONS if name not in NO_PRODUCTS])
def test_factors_of_a_convolution_are_those_of_the_product_of_its_patches(name):
    x, weights, function = convolution(name)
    (product,) = find_products(jax.make_jaxpr(functools.partial(function, x))(weights).jaxpr).values()
    scales = jnp.arange(1.0, TASKS + 1)

    @jax.jit
    def both(x, weights):
        result, back = jax.vjp(functools.partial(function, x), weights)
        cotangents = jax.random.normal(jax.random.key(1), (TASKS, *result.shape))
        factors = product.factors(product.matrix(x), cotangents)
        rows = jax.vmap(lambda cotangent: back(cotangent)[0])(cotangents)
        return factors.gramian(), factors.combine(scales), rows

    gramian, direction, rows = both(x, weights)
    # float32 sums over the positions, in another order.
    np.testing.assert_allclose(gramian, gramian_of(rows), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(direction, jnp.tensordot(scales, rows, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', NO_PRODUCTS)
def test_a_convolution_that_is_no_product_of_all_channels_is_left_alone(name):
    x, weights, function = convolution(name)
    assert not find_products(jax.make_jaxpr(functools.partial(function, x))(weights).jaxpr)
