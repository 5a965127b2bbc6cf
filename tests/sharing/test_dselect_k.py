"""The smooth step, the codes of the experts, and the entropy that makes the choices sharp."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import sharing
from mmtl_jax.sharing.dselect_k import Selector, entropies, single_choices, smooth_step
from tests import quick
from tests.sharing.test_common import TASKS, WIDTH, fused


def test_the_smooth_step_is_exact_outside_and_smooth_inside():
    x = np.array([-5.0, -1.0, -0.5, 0.0, 0.5, 1.0, 5.0], np.float32)
    # By hand for gamma = 2: -2/8 x^3 + 3/4 x + 1/2.
    np.testing.assert_array_equal(smooth_step(x, 2.0), [0, 0, 0.15625, 0.5, 0.84375, 1, 1])
    slopes = jax.vmap(jax.grad(lambda x: smooth_step(x, 2.0)))(x)
    np.testing.assert_allclose(slopes, [0, 0, 0.5625, 0.75, 0.5625, 0, 0], atol=1e-6)


@pytest.mark.parametrize('num_experts', [2, 3, 4, 5, 7, 8])
def test_sharp_bits_choose_one_expert_to_the_bit_whatever_the_code(num_experts):
    num_bits = int(np.ceil(np.log2(num_experts)))
    codes = np.arange(2**num_bits)
    bits = np.where((codes[:, None] >> np.arange(num_bits)) & 1, 0.5, -0.5).astype(np.float32)
    choices = np.asarray(single_choices(bits, num_experts, gamma=1.0))
    np.testing.assert_array_equal(choices, np.eye(num_experts)[codes % num_experts])
    # Every expert can be chosen.
    assert np.all(choices.any(axis=0))


@pytest.mark.parametrize('num_experts', [3, 4, 6])
def test_choices_between_the_limits_are_distributions(num_experts):
    scores = (
        np.random.default_rng(0).normal(scale=0.3, size=(20, int(np.ceil(np.log2(num_experts))))).astype(np.float32)
    )
    choices = np.asarray(single_choices(scores, num_experts, gamma=1.0))
    assert np.all(choices >= 0)
    np.testing.assert_allclose(choices.sum(axis=-1), 1, rtol=1e-5)


def test_the_first_bits_of_four_experts_have_the_product_form_of_the_paper():
    s = np.asarray(smooth_step(np.array([0.1, -0.2]), 1.0))
    expected = [(1 - s[0]) * (1 - s[1]), s[0] * (1 - s[1]), (1 - s[0]) * s[1], s[0] * s[1]]
    np.testing.assert_allclose(single_choices(np.array([0.1, -0.2]), 4, gamma=1.0), expected, rtol=1e-6)


def test_a_sharp_selector_takes_exactly_k_experts_with_the_weights_of_its_softmax():
    selector, features = Selector(num_experts=5, num_selected=3, gamma=1.0), fused(num_maps=0)
    variables = quick.parameters(selector, features)['params']
    # Far beyond the limits: the codes 1, 2 and 4, whatever the features.
    signs = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
    variables = {**variables, 'bits': {'kernel': variables['bits']['kernel'] * 0, 'bias': 3 * signs}}
    weights, entropy = quick.jit(lambda: selector.apply({'params': variables}, features))()
    np.testing.assert_array_equal(np.asarray(weights) > 0, [[False, True, True, False, True]] * 3)
    x = np.asarray(features.tokens).sum(axis=1) / np.maximum(features.mask.sum(axis=1), 1)[:, None]
    expected = jax.nn.softmax(x @ variables['weights']['kernel'])
    np.testing.assert_allclose(weights[:, [1, 2, 4]], expected, rtol=1e-5)
    np.testing.assert_array_equal(entropy, 0)


def test_the_entropy_is_that_of_the_choices_and_has_a_gradient_where_one_is_out():
    choices = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    np.testing.assert_allclose(entropies(choices), [np.log(2), 0, np.log(3)], rtol=1e-6, atol=1e-7)
    assert np.all(np.isfinite(jax.grad(lambda c: entropies(c).sum())(choices)))


def test_the_entropy_trains_the_selector_until_it_takes_k_experts():
    scheme, features = sharing.DSelectK(TASKS, WIDTH, num_experts=6, num_selected=2), fused(num_maps=0)
    variables = quick.parameters(scheme, features, train=False)
    optimizer = optax.adam(0.05)

    def entropy(variables):
        shared = scheme.apply(variables, features, train=False)
        return sum(jnp.sum(shared[task].objectives['entropy']) for task in TASKS)

    @quick.jit
    def step(variables, state):
        value, gradient = jax.value_and_grad(entropy)(variables)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    state, values = optimizer.init(variables), []
    for _ in range(60):
        variables, state, value = step(variables, state)
        values.append(float(value))
    assert values[0] > 1
    assert values[-1] == 0
    selector = Selector(6, 2, 1.0)
    weights = selector.apply({'params': variables['params']['selector_colour']}, features)[0]
    real = features.mask.any(axis=1)
    assert np.all((np.asarray(weights) > 0).sum(axis=1)[real] <= 2)
