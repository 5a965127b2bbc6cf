"""OGM-GE: the paper's formula, for any number of modalities, on the gradients of the encoders and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing
from mmtl_jax.training.gradient import make_gradient
from mmtl_jax.training.modulation import (
    OGMGE,
    compared_tasks,
    log_ratios,
    modulate,
    modulation_coefficients,
    with_modulation,
)
from tests.training.tiny import TASKS, make_batch, make_model, make_state


def test_two_modalities_have_the_ratios_of_the_paper():
    """Logits of a linear head, split into the parts of two modalities as in the paper's code."""
    random = np.random.default_rng(0)
    weight, bias, truth = random.normal(size=(2, 5, 3)), random.normal(size=3), random.integers(0, 3, 6)
    features = random.normal(size=(2, 6, 5)) * np.array([2.0, 0.5])[:, None, None]
    logits = np.stack([features[m] @ weight[m] + bias / 2 for m in range(2)])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    scores = probabilities[:, np.arange(6), truth].sum(axis=1)
    ratios = scores / scores[::-1]
    expected = [1 - np.tanh(0.8 * max(ratio, 0)) if ratio > 1 else 1.0 for ratio in ratios]

    losses = np.stack(
        [optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(one), jnp.asarray(truth)) for one in logits]
    )
    found = jnp.exp(log_ratios(jnp.asarray(-losses), jnp.ones((2, 6), bool)))
    np.testing.assert_allclose(found, ratios, rtol=1e-5)
    np.testing.assert_allclose(modulation_coefficients(found, 0.8), expected, rtol=1e-5)
    assert min(expected) < 1 == max(expected)


def test_more_modalities_are_compared_with_the_mean_of_the_others_where_rows_have_them():
    random = np.random.default_rng(1)
    scores, usable = random.uniform(0.05, 1.0, (3, 7)), random.random((3, 7)) > 0.3
    usable[:, 0], usable[:, 1] = True, [True, False, False]
    expected = []
    for m in range(3):
        own = others = 0.0
        for row in range(7):
            rest = [scores[n, row] for n in range(3) if n != m and usable[n, row]]
            if usable[m, row] and rest:
                own, others = own + scores[m, row], others + np.mean(rest)
        expected.append(own / others)
    found = jnp.exp(log_ratios(jnp.where(usable, jnp.log(scores), jnp.nan), jnp.asarray(usable)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_to_compare_changes_nothing():
    alone = np.array([[True, True, False], [False, False, True]])
    assert not np.isfinite(log_ratios(jnp.zeros((2, 3)), jnp.asarray(alone))).any()


@pytest.fixture(scope='module')
def found():
    """Returns the gradient of one batch: as it is, under OGM alone, under OGM-GE, and after its last step."""
    model, state, batch = make_model(), make_state(make_model(), optax.sgd(0.1), balancing.equal()), make_batch(0)
    plain = make_gradient(model, TASKS, balancing.equal())
    ways = [
        plain,
        with_modulation(plain, model, TASKS, OGMGE(alpha=0.3, noise=False, tasks=('kind',))),
        with_modulation(plain, model, TASKS, OGMGE(alpha=0.3, until=2)),
    ]
    late = state.replace(step=jnp.int32(2))
    return (
        model,
        state,
        batch,
        jax.jit(lambda s, t, b: ([way(s, b) for way in ways], ways[2](t, b)))(state, late, batch),
    )


def test_the_ratio_is_that_of_the_model_with_one_modality_alone(found):
    model, state, batch, ((_, (_, outcome), _), _) = found
    both, scores = np.asarray(batch.present['table'] & batch.present['text']), {}
    for modality in ('table', 'text'):
        only = {name: mask & (name == modality) for name, mask in batch.present.items()}
        logits = model.apply({'params': state.params}, batch.replace(present=only), train=False)['kind']
        scores[modality] = jax.nn.softmax(logits)[np.arange(len(both)), batch.targets['kind']][both].sum()
    ratio = scores['table'] / scores['text']
    np.testing.assert_allclose(outcome.recorded['modalities/table/ratio'], ratio, rtol=1e-5)
    np.testing.assert_allclose(outcome.recorded['modalities/text/ratio'], 1 / ratio, rtol=1e-5)


def test_only_the_leading_encoder_is_slowed_down(found):
    *_, (((plain, _), (gradients, outcome), _), _) = found
    coefficients = {name: float(outcome.recorded[f'modalities/{name}/coefficient']) for name in ('table', 'text')}
    assert sorted(value < 1 for value in coefficients.values()) == [False, True]
    for modality, coefficient in coefficients.items():
        jax.tree.map(
            lambda got, was, k=coefficient: np.testing.assert_allclose(got, k * was, rtol=1e-6),
            gradients['encoders'][modality],
            plain['encoders'][modality],
        )
    for part in set(plain) - {'encoders'}:
        jax.tree.map(np.testing.assert_array_equal, gradients[part], plain[part])


def test_noise_is_added_until_the_last_step(found):
    *_, (((plain, _), _, (noisy, _)), (late, outcome)) = found
    for got, was in zip(jax.tree.leaves(noisy['encoders']), jax.tree.leaves(plain['encoders']), strict=True):
        assert np.std(got - was) >= 0.2 * np.std(was)
    # Compiled as another program, float32 sums end in other last digits.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, late['encoders'], plain['encoders'])
    assert outcome.recorded['modalities/text/coefficient'] == outcome.recorded['modalities/table/coefficient'] == 1.0


def test_the_noise_is_as_large_as_the_gradient_was():
    gradient = {'kernel': jax.random.normal(jax.random.key(0), (300, 300)) * 0.2 + 1.0, 'idle': jnp.zeros(4)}
    noisy = modulate(gradient, jnp.float32(0.25), jax.random.key(1), jnp.float32(1.0))
    noise = np.asarray(noisy['kernel'] - 0.25 * gradient['kernel'])
    # The deviation of 90,000 draws is known to a quarter of a percent.
    np.testing.assert_allclose(noise.std(), 0.2, rtol=0.01)
    assert abs(noise.mean()) < 0.01
    assert not noisy['idle'].any()


@pytest.mark.parametrize(
    ('options', 'modalities', 'message'),
    [
        ({}, ('image',), r"compares modalities, but there is only \['image'\]; add one, or leave it out"),
        ({'tasks': ('hue',)}, ('image', 'text'), r"names 'hue'; it goes by tasks that read the fused .* \['kind', "),
        ({'tasks': ()}, ('image', 'text'), 'has no task to go by'),
        ({'alpha': 0.0}, (), 'alpha is 0.0; it must be a number above 0'),
        ({'until': 0}, (), 'until is 0; it must be a step from 1 on'),
    ],
)
def test_bad_options(options, modalities, message):
    with pytest.raises(ValueError, match=message):
        compared_tasks(OGMGE(**options), TASKS, modalities)
