"""Attention from queries to a context, and the block around it, against their plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import nn
from mmtl_jax.core.tree import all_finite
from tests import quick
from tests.nn import plain

WIDTH, CONTEXT = 6, 5
# Real tokens of the context of each row; the third has none.
LENGTHS = np.array([4, 2, 0, 1])
MASK = np.arange(max(LENGTHS))[None] < LENGTHS[:, None]
# float32 against float64.
CLOSE = {'atol': 1e-5}


def inputs(fill: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns queries `[B, 3, WIDTH]` and a context `[B, N, CONTEXT]` with `fill` where it is masked."""
    random = np.random.default_rng(0)
    queries = random.normal(size=(len(MASK), 3, WIDTH)).astype(np.float32)
    context = random.normal(size=(*MASK.shape, CONTEXT)).astype(np.float32)
    return queries, np.where(MASK[..., None], context, np.float32(fill))


# With 6 channels and 4 heads, a head has 2 channels: more than 6 in all.
@pytest.mark.parametrize('num_heads', [2, 4])
def test_attention_agrees_with_its_formula_whatever_is_masked(num_heads):
    layer = nn.Attention(num_heads=num_heads)
    variables = quick.parameters(layer, *inputs(), MASK, noise=0.1, train=False)

    @quick.jit
    def step(queries, context):
        def objective(queries, context):
            output, weights = layer.apply(variables, queries, context, MASK, train=False)
            return jnp.sum(jnp.sin(output)), (output, weights)

        return jax.grad(objective, argnums=(0, 1), has_aux=True)(queries, context)

    (by_queries, by_context), (output, weights) = step(*inputs())
    jax.tree.map(np.testing.assert_array_equal, step(*inputs(np.nan)), ((by_queries, by_context), (output, weights)))
    for row, (queries, context) in enumerate(zip(*inputs(), strict=True)):
        if MASK[row].any():
            expected, expected_weights = plain.attention_to(variables['params'], queries, context[MASK[row]])
            np.testing.assert_allclose(output[row], expected, **CLOSE)
            np.testing.assert_allclose(weights[row][..., MASK[row]], expected_weights, **CLOSE)
        np.testing.assert_array_equal(weights[row][..., ~MASK[row]], 0)
    assert all_finite((by_queries, by_context))
    np.testing.assert_array_equal(np.any(by_context, axis=-1), MASK)


def test_a_row_without_a_context_gets_zero():
    layer = nn.Attention(num_heads=2)
    variables = quick.parameters(layer, *inputs(), MASK, noise=0.1, train=False)
    output, weights = quick.jit(lambda: layer.apply(variables, *inputs(np.inf), MASK, train=False))()
    np.testing.assert_array_equal(output[2], 0)
    np.testing.assert_array_equal(weights[2], 0)


@pytest.mark.parametrize('crossed', [True, False])
def test_block_agrees_with_its_formula(crossed):
    queries, context = inputs(np.nan)
    block = nn.AttentionBlock(num_heads=2, expansion=2)
    # Without a context the tokens attend to the first of themselves.
    mask = MASK if crossed else np.arange(3)[None] < LENGTHS[:, None]
    arguments = (queries, mask, context) if crossed else (queries, mask)
    variables = quick.parameters(block, *arguments, noise=0.1, train=False)
    output, _ = quick.jit(lambda: block.apply(variables, *arguments, train=False))()
    for row, real in enumerate(mask):
        if real.any():
            given = (queries[row], context[row][real]) if crossed else (queries[row][real],)
            got = output[row] if crossed else output[row][real]
            np.testing.assert_allclose(got, plain.attention_block(variables['params'], *given), **CLOSE)
    assert all_finite(output)


def test_block_with_dropout_and_in_bfloat16():
    block = nn.AttentionBlock(num_heads=2, dropout_rate=0.5, dtype=jnp.bfloat16)
    queries, context = inputs()
    variables = quick.parameters(block, queries, MASK, context, noise=0.1, train=False)

    @quick.jit
    def run(key):
        plainly, _ = block.apply(variables, queries, MASK, context, train=False)
        dropped, weights = block.apply(variables, queries, MASK, context, train=True, rngs={'dropout': key})
        return plainly, dropped, weights

    plainly, dropped, weights = run(jax.random.key(0))
    assert plainly.dtype == jnp.float32  # The residual keeps the type of the tokens.
    assert weights.dtype == jnp.float32
    assert np.max(np.abs(plainly - dropped)) > 1e-2
    # What is recorded are the weights before dropout: they still add up to 1.
    np.testing.assert_allclose(np.sum(weights, axis=-1)[MASK.any(axis=1)], 1, atol=1e-6)
    row = plain.attention_block(variables['params'], queries[0], context[0][MASK[0]])
    # bfloat16 has 8 bits: 1/256 per operation on numbers around one.
    np.testing.assert_allclose(plainly[0], row, atol=0.1)


def test_sinusoids_turn_with_the_position():
    # Channel 0 is the sine of the position, channel 2 its cosine; an odd width drops the last cosine.
    waves = nn.sinusoids(5, 3)
    assert waves.shape == (5, 3)
    np.testing.assert_allclose(waves[:, 0], np.sin(np.arange(5)), **CLOSE)
    np.testing.assert_allclose(waves[:, 2], np.cos(np.arange(5)), **CLOSE)
    np.testing.assert_allclose(waves[:, 1], np.sin(np.arange(5) / 100), **CLOSE)
