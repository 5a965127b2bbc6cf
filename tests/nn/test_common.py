"""Every layer that takes a mask gives, on padded rows, what its plain form gives on each row without padding."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import nn
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from tests import quick
from tests.nn import plain

WIDTH = 6
LENGTHS = np.array([5, 2, 0, 1])
MASK = np.arange(max(LENGTHS))[None] < LENGTHS[:, None]

# One row per layer and variant: arguments and the plain form.
CASES = {
    'LSTM': ({'width': 5}, functools.partial(plain.bidirectional_lstm, width=5)),
    'LSTM, forwards': ({'width': 5, 'bidirectional': False}, plain.lstm),
    'AttentionPooling': ({}, plain.attention_pooling),
    'DepthwiseConv': ({'kernel_size': 3}, plain.depthwise_conv),
    'DepthwiseConv, even': ({'kernel_size': 4}, plain.depthwise_conv),
    'ResidualConv': ({'kernel_size': 3, 'dropout_rate': 0.5}, plain.residual_conv),
    'SelfAttention': ({'num_heads': 4, 'dropout_rate': 0.5}, plain.attention),
    'SelfAttention, rotary': ({'num_heads': 2, 'rotary': True, 'dropout_rate': 0.5}, plain.rotary_attention),
    'TransformerBlock': ({'num_heads': 2, 'expansion': 2, 'dropout_rate': 0.5}, plain.transformer_block),
}


def takes_a_mask(name: str) -> bool:
    exported = getattr(nn, name)
    return inspect.isclass(exported) and 'mask' in inspect.signature(exported.__call__).parameters


def tokens(fill: float = 0.0) -> np.ndarray:
    """Returns `[B, N, D]` with `fill` in masked positions."""
    values = np.random.default_rng(0).normal(size=(*MASK.shape, WIDTH))
    return np.where(MASK[..., None], values, fill).astype(np.float32)


class Case:
    """One layer with its parameters and compiled function, shared by the tests."""

    def __init__(self, name: str):
        arguments, self.plain = CASES[name]
        self.layer = getattr(nn, name.split(',')[0])(**arguments)
        self.off = {'train': False} if 'train' in inspect.signature(self.layer.__call__).parameters else {}
        self.variables = quick.parameters(self.layer, tokens(), MASK, noise=0.1, **self.off)
        self._step = quick.jit(jax.grad(self._objective, argnums=(0, 1), has_aux=True))

    def _objective(self, variables, values, mask):
        """Returns a scalar that sees every real output, and the outputs."""
        outputs = self.layer.apply(variables, values, mask, **self.off)
        real = mask if outputs.ndim == 3 else mask.any(axis=1)
        return jnp.sum(jnp.where(real[..., None], jnp.sin(outputs + 0.1), 0)), outputs

    def step(self, values, mask=MASK):
        """Returns the gradients by variables and tokens, and the outputs."""
        return self._step(self.variables, values, mask)


case_of = functools.cache(Case)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return case_of(request.param)


def test_every_layer_that_takes_a_mask_has_a_case():
    assert {name.split(',')[0] for name in CASES} == set(filter(takes_a_mask, nn.__all__))


def test_agrees_with_its_plain_form_on_rows_without_padding(case):
    outputs = case.step(tokens())[1]
    parameters = jax.tree.map(np.float64, case.variables['params'])
    for output, row, mask in zip(outputs, tokens(), MASK, strict=True):
        if mask.any():
            # float32 against float64.
            real = output[mask] if output.ndim == 2 else output
            np.testing.assert_allclose(real, case.plain(parameters, np.float64(row[mask])), atol=1e-5)


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_masked_positions_change_nothing_to_the_bit(case, fill):
    jax.tree.map(np.testing.assert_array_equal, case.step(tokens()), case.step(tokens(fill)))


def test_gradients_are_finite_and_reach_every_real_token_and_no_other(case):
    (by_variables, by_tokens), outputs = case.step(tokens())
    assert all_finite((by_variables, outputs))
    np.testing.assert_array_equal(np.any(by_tokens, axis=-1), MASK)
    for path, gradient in flatten_with_paths(by_variables).items():
        # A bias of the keys adds the same to every score of a query, which a softmax does not see.
        if not path.endswith('key/bias'):
            assert np.any(gradient), path


def test_rows_without_any_real_token_are_finite_and_without_gradient(case):
    gradients, outputs = case.step(tokens(np.nan), np.zeros_like(MASK))
    assert all_finite(outputs)
    assert not any(gradient.any() for gradient in jax.tree.leaves(gradients))


@pytest.mark.parametrize('case', [name for name in CASES if 'dropout_rate' in CASES[name][0]], indirect=True)
def test_dropout_acts_in_training_only_by_its_own_rng(case):
    @quick.jit
    def train(key):
        return case.layer.apply(case.variables, tokens(), MASK, train=True, rngs={'dropout': key})

    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.max(np.abs(first - other)[MASK]) > 1e-3
    assert np.max(np.abs(first - case.step(tokens())[1])[MASK]) > 1e-3
