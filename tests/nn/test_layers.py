"""The layers and functions without a mask of their own, and what masks, positions and dropout are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import nn
from tests import quick
from tests.nn import plain

# float32 against float64.
CLOSE = {'atol': 1e-5}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_mlp_by_hand():
    module, x = nn.MLP(width=4, depth=2), normal(2, 3, 5)
    variables = quick.parameters(module, x, train=False)
    expected = x
    for layer in ('Dense_0', 'Dense_1'):
        expected = plain.gelu(plain.dense(variables['params'][layer], expected))
    np.testing.assert_allclose(
        quick.jit(module.apply, static_argnames='train')(variables, x, train=False), expected, **CLOSE
    )


def test_an_mlp_of_depth_zero_hands_the_input_on():
    x = normal(2, 5)
    outputs, variables = nn.MLP(width=4, depth=0).init_with_output(jax.random.key(0), x, train=False)
    assert not variables
    np.testing.assert_array_equal(outputs, x)


def test_feed_forward_by_hand():
    module, x = nn.FeedForward(expansion=3), normal(2, 3, 4)
    variables = quick.parameters(module, x, train=False)
    assert variables['params']['Dense_0']['kernel'].shape == (4, 12)
    outputs = quick.jit(lambda: module.apply(variables, x, train=False))()
    np.testing.assert_allclose(outputs, plain.feed_forward(variables['params'], x), **CLOSE)


def test_filling_keeps_real_values_and_their_type():
    values = jnp.array([[[1, 2], [3, 4]]], jnp.int32)
    filled = nn.fill_masked(values, jnp.array([[True, False]]), fill=-1)
    np.testing.assert_array_equal(filled, [[[1, 2], [-1, -1]]])
    assert filled.dtype == jnp.int32


def test_masked_softmax_is_the_softmax_of_the_real_entries():
    logits, mask = normal(3, 4), np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    weights = quick.jit(nn.masked_softmax)(np.where(mask, logits, np.nan), mask)
    np.testing.assert_allclose(weights[0], plain.softmax(logits[0]), **CLOSE)
    np.testing.assert_allclose(weights[1, [1, 3]], plain.softmax(logits[1, [1, 3]]), **CLOSE)
    np.testing.assert_array_equal(weights[~mask], 0)


def test_masked_softmax_keeps_a_real_entry_of_any_size():
    weights = nn.masked_softmax(jnp.array([[-1e30, 0.0], [1e30, 0.0]]), jnp.array([[True, False], [True, True]]))
    np.testing.assert_array_equal(weights, [[1, 0], [1, 0]])


def test_masked_mean_is_the_mean_of_the_real_tokens():
    tokens, mask = normal(3, 4, 2), np.array([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    spoilt = np.where(mask[..., None], tokens, np.nan)
    mean, gradient = quick.jit(jax.vmap(jax.value_and_grad(lambda t, m: jnp.sum(nn.masked_mean(t[None], m[None])))))(
        spoilt, mask
    )
    np.testing.assert_allclose(mean[:2], [tokens[0].mean(0).sum(), tokens[1, [1, 3]].mean(0).sum()], **CLOSE)
    assert mean[2] == 0
    np.testing.assert_array_equal(gradient[:, :, 0], [[0.25] * 4, [0, 0.5, 0, 0.5], [0] * 4])


def test_the_gradient_of_a_maximum_is_shared_by_the_entries_that_reach_it():
    x = jnp.array([[1.0, 3.0, 3.0], [2.0, 0.0, -1.0]])
    np.testing.assert_array_equal(nn.max_over(x, 1), [3, 2])
    np.testing.assert_array_equal(jax.grad(lambda x: nn.max_over(x, 1).sum())(x), [[0, 0.5, 0.5], [1, 0, 0]])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(nn.max_over(x, (0, 1))))(x), [[0, 0.5, 0.5], [0, 0, 0]])


def test_attention_pooling_starts_as_the_mean():
    tokens, mask = normal(2, 3, 4), np.array([[1, 1, 1], [1, 1, 0]], bool)
    pooled, _ = quick.jit(lambda: nn.AttentionPooling().init_with_output(jax.random.key(0), tokens, mask))()
    np.testing.assert_allclose(pooled, nn.masked_mean(tokens, mask), **CLOSE)


def test_rotations_turn_pairs_of_channels():
    heads = normal(2, 5, 3, 8)
    for row, rotated in zip(heads, quick.jit(nn.rotate)(heads), strict=True):
        np.testing.assert_allclose(rotated, plain.rotate(row), **CLOSE)


def test_products_of_rotated_vectors_depend_on_the_distance_only():
    query, key = (np.broadcast_to(vector, (1, 7, 1, 8)) for vector in normal(2, 8))
    products = np.einsum('bqhd,bkhd->qk', *map(quick.jit(nn.rotate), (query, key)))
    for distance in range(-6, 7):
        np.testing.assert_allclose(np.ptp(np.diagonal(products, distance)), 0, **CLOSE)
    assert np.ptp(products) > 0.1


@pytest.mark.parametrize('train', [True, False])
def test_channel_dropout_leaves_out_a_channel_in_all_tokens_of_a_row(train):
    ones = jnp.ones((40, 3, 50))
    layer = nn.channel_dropout(0.25, train=train)
    dropped = quick.jit(lambda: layer.apply({}, ones, rngs={'dropout': jax.random.key(0)}))()
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], ones.shape))
    if not train:
        np.testing.assert_array_equal(dropped, ones)
        return
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.75], rtol=1e-6)
    # 2000 channels: a standard deviation of 0.01.
    np.testing.assert_allclose(np.mean(dropped == 0), 0.25, atol=0.04)


def test_kernels_of_convolutions_have_the_variance_of_their_fan_in():
    kernel = quick.jit(lambda key: nn.conv_kernel(key, (3, 3, 8, 64)))(jax.random.key(0))
    assert kernel.shape == (3, 3, 8, 64)
    assert kernel.dtype == jnp.float32
    # 4608 values: their standard deviation is known to a hundredth.
    np.testing.assert_allclose(np.std(kernel), 1 / np.sqrt(3 * 3 * 8), rtol=0.04)
