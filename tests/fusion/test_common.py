"""What holds for every fusion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import fusion
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Features, Fused
from tests import quick

WIDTH = 6
# Which tokens each of six rows has: all three, no image, no text, no audio, none, one token each.
TOKENS = {'image': [2, 0, 2, 1, 0, 1], 'text': [3, 2, 0, 3, 0, 1], 'audio': [1, 4, 4, 0, 0, 1]}
# A fourth, for the test of other numbers of modalities.
MORE_TOKENS = TOKENS | {'table': [2, 0, 1, 2, 0, 1]}
WIDTHS = {'image': 5, 'text': 3, 'audio': 6, 'table': 4}
ROWS, EMPTY = 6, 4
SMALL = {'depth': 1, 'num_heads': 2, 'expansion': 2}

DECISIONS = ('DecisionAverage', 'DecisionWeighted', 'ProductOfExperts', 'Stacking')

# One row per fusion and variant: arguments beside the width.
CASES = {
    'Concat': {},
    'Concat, mean pooling': {'pooling': 'mean'},
    'Mean': {},
    'Sum': {},
    'Weighted': {},
    'Weighted, token': {'absent': 'token'},
    'Gated': {},
    'FiLM': {},
    'FiLM, token': {'modulated': 'text', 'absent': 'token'},
    'Multiplicative': {'factor_width': 4},
    'Multiplicative, vector': {'form': 'vector'},
    'Multiplicative, scalar': {'form': 'scalar', 'absent': 'token'},
    'MLB': {'rank': 5},
    'MFB': {'factors': 2},
    'MUTAN': {'factor_width': 4, 'core_width': 5, 'rank': 2},
    'TensorFusion': {'factor_width': 2},
    'LowRank': {'rank': 3},
    'LowRank, token': {'rank': 3, 'absent': 'token'},
    'Hierarchical': {},
    'Early': SMALL,
    'Early, tokens': {**SMALL, 'pooling': 'none', 'absent': 'token'},
    'CrossAttention': {**SMALL, 'self_depth': 0},
    'CrossAttention, tokens': {**SMALL, 'pooling': 'none', 'absent': 'token'},
    'Bottleneck': SMALL,
    'Bottleneck, as published': {**SMALL, 'self_attention': True, 'pooling': 'none'},
    'Perceiver': {**SMALL, 'num_latents': 3, 'num_reads': 2},
    'Perceiver, tokens': {**SMALL, 'num_latents': 3, 'pooling': 'none', 'absent': 'token'},
    'NonLocalGate': {},
    'NonLocalGate, tokens': {'pooling': 'none', 'num_heads': 2},
    **{name: {} for name in DECISIONS},
    'Autoencoder': {},
    'Variational': {},
    'Factorized': {},
    'MatrixFactorization': {},
    'DeepCCA': {'components': 3},
    'DeepBeliefNetwork': {},
}
# What takes seconds to compile, and does little that another case does not.
SLOW = {
    *('Weighted, token', 'Multiplicative, vector', 'Multiplicative, scalar', 'LowRank, token', 'NonLocalGate, tokens'),
    *('Early, tokens', 'CrossAttention, tokens', 'Bottleneck, as published', 'Perceiver, tokens', *DECISIONS[1:]),
}
# What needs two modalities; for the others, one is enough.
JOIN_TWO = {
    *('Gated', 'FiLM', 'Multiplicative', 'MLB', 'MFB', 'MUTAN', 'TensorFusion', 'LowRank', 'Hierarchical'),
    *('CrossAttention', 'Bottleneck', 'NonLocalGate', 'DeepCCA'),
}
# Those whose other sizes and types the quick tests run; the slow ones run all.
QUICK = {'Concat', 'Gated', 'FiLM', 'MFB', 'LowRank', 'NonLocalGate', 'Autoencoder', DECISIONS[0]}


def marked(names, slow: set[str]) -> list:
    """Returns parameters, those of which the class or the name is `slow` with the marker."""
    return [pytest.param(name, marks=pytest.mark.slow) if {name, name.split(',')[0]} & slow else name for name in names]


def encoded(fill: float = 0.0, modalities: tuple[str, ...] = tuple(TOKENS)) -> dict[str, Features]:
    """Returns features of unequal widths and lengths, with `fill` in masked positions."""
    features = {}
    for seed, modality in enumerate(modalities):
        lengths = np.array(MORE_TOKENS[modality])
        mask = np.arange(max(lengths))[None] < lengths[:, None]
        tokens = np.random.default_rng(seed).normal(size=(*mask.shape, WIDTHS[modality]))
        features[modality] = Features(np.where(mask[..., None], tokens, fill).astype(np.float32), mask)
    return features


def learned(fused: Features) -> jax.Array:
    """Returns a scalar of what a fusion learns by itself, 0 where that is nothing."""
    objectives = fused.objectives if isinstance(fused, Fused) else {}
    return sum((jnp.sum(jnp.sin(values)) for values in objectives.values()), jnp.float32(0))


class Case:
    """One fusion with its parameters and compiled functions, shared by the tests."""

    def __init__(self, name: str):
        self.fusion = getattr(fusion, name.split(',')[0])(width=WIDTH, dropout_rate=0.5, **CASES[name])
        self.variables = quick.parameters(self.fusion, encoded(), noise=0.1, train=False)
        self.traces = 0
        self._step = quick.jit(jax.grad(self._objective, argnums=(0, 1), has_aux=True, allow_int=True))
        self._train = quick.jit(self._apply_in_training)

    def _objective(self, variables, features):
        """Returns a scalar, and the fused features.

        The scalar sees every real token, all tokens of a row without any, which must give no gradient by itself, and
        what the fusion learns by itself.
        """
        self.traces += 1
        fused = self.fusion.apply(variables, features, train=False)
        seen = fused.mask | ~fused.mask.any(axis=1, keepdims=True)
        return jnp.sum(jnp.where(seen[..., None], jnp.sin(fused.tokens + 0.1), 0)) + learned(fused), fused

    def _apply_in_training(self, variables, features, key):
        return self.fusion.apply(variables, features, train=True, rngs={'dropout': key})

    def step(self, features):
        """Returns the gradients by variables and features, and the fused features."""
        return self._step(self.variables, features)

    def train(self, features, seed: int) -> Features:
        """Returns the fused features with dropout."""
        return self._train(self.variables, features, jax.random.key(seed))


case_of = functools.cache(Case)


@pytest.fixture(params=marked(CASES, SLOW))
def case(request) -> Case:
    return case_of(request.param)


def test_every_fusion_has_a_case():
    assert {name.split(',')[0] for name in CASES} == set(fusion.__all__)


def test_tokens_have_the_width_and_the_mask_says_whether_any_modality_is_there(case):
    _, fused = case.step(encoded())
    assert fused.tokens.shape == (ROWS, fused.mask.shape[1], WIDTH)
    assert fused.tokens.dtype == jnp.float32
    assert fused.mask.dtype == bool
    np.testing.assert_array_equal(fused.mask.any(axis=1), np.arange(ROWS) != EMPTY)
    assert all_finite(fused)


def test_parameters_are_float32(case):
    assert {leaf.dtype for leaf in jax.tree.leaves(case.variables)} == {np.dtype('float32')}


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_absent_modalities_and_masked_tokens_change_nothing_to_the_bit(case, fill):
    jax.tree.map(np.testing.assert_array_equal, case.step(encoded()), case.step(encoded(fill)))
    jax.tree.map(np.testing.assert_array_equal, case.train(encoded(), seed=0), case.train(encoded(fill), seed=0))


def test_gradients_are_finite_and_reach_every_parameter_and_every_real_token(case):
    (by_variables, by_features), _ = case.step(encoded())
    for path, gradient in flatten_with_paths(by_variables).items():
        assert np.isfinite(gradient).all(), path
        assert np.max(np.abs(gradient)) > 1e-6, path
    for modality, features in encoded().items():
        gradient = by_features[modality].tokens
        assert np.isfinite(gradient).all(), modality
        np.testing.assert_array_equal(np.any(gradient, axis=-1), features.mask)


def test_a_row_without_any_modality_gives_no_gradient(case):
    nothing = {name: Features(f.tokens, np.zeros_like(f.mask)) for name, f in encoded(np.nan).items()}
    (by_variables, _), fused = case.step(nothing)
    assert all_finite(fused)
    assert not fused.mask.any()
    assert not any(gradient.any() for gradient in jax.tree.leaves(by_variables))


def test_one_compile_for_every_missing_subset(case):
    case.step(encoded())
    traces = case.traces
    case.step(jax.tree.map(np.ones_like, encoded()))
    assert case.traces == traces


def test_rows_do_not_see_each_other(case):
    order = np.array([3, 5, 0, 4, 1, 2])
    _, permuted = case.step(jax.tree.map(lambda array: array[order], encoded()))
    # Another place in the batch may sum in another order.
    np.testing.assert_allclose(permuted.tokens, case.step(encoded())[1].tokens[order], atol=1e-5)


def test_the_order_of_the_modalities_does_not_matter(case):
    def program(order):
        # An argument jit would sort; the order of the dictionary made inside stays.
        def apply(features):
            return case.fusion.apply(case.variables, {name: features[name] for name in order}, train=False)

        return jax.jit(apply).lower(encoded()).as_text()

    assert program(TOKENS) == program([*TOKENS][::-1])


def test_one_modality_is_enough_or_told_to_be_too_few(case):
    features = encoded(modalities=('audio',))

    def init():
        return case.fusion.init_with_output(jax.random.key(0), features, train=False)[0]

    name = type(case.fusion).__name__
    if name in JOIN_TWO:
        with pytest.raises(ValueError, match=f"^{name} joins two or more modalities, got only 'audio'; for one, take"):
            jax.eval_shape(init)
    else:
        assert jax.eval_shape(init).tokens.shape[-1] == WIDTH


def check_gradients(module, variables, features):
    """Asserts that the gradient of the real outputs is finite and reaches every parameter, in a compiled step."""

    def objective(variables, features):
        fused = module.apply(variables, features, train=False)
        seen = jnp.where(fused.mask[..., None], jnp.sin(fused.tokens.astype(jnp.float32) + 0.1), 0)
        return jnp.sum(seen) + learned(fused), fused

    gradients, fused = quick.jit(jax.grad(objective, has_aux=True))(variables, features)
    for path, gradient in flatten_with_paths(gradients).items():
        assert gradient.dtype == jnp.float32, path
        assert np.isfinite(gradient).all(), path
        assert np.max(np.abs(gradient)) > 1e-6, path
    return fused


@pytest.mark.parametrize('name', marked(CASES, {*CASES} - QUICK))
def test_two_modalities_in_bfloat16_are_near_a_batch_of_one_in_float32(name):
    features, plain = encoded(modalities=('text', 'audio')), case_of(name).fusion
    module = plain.clone(dtype=jnp.bfloat16)
    variables = quick.parameters(module, features, noise=0.1, train=False)
    fused = check_gradients(module, variables, features)
    assert fused.tokens.dtype == jnp.bfloat16
    np.testing.assert_array_equal(fused.mask.any(axis=1), np.arange(ROWS) != EMPTY)
    one = jax.tree.map(lambda array: array[:1], features)
    exact = quick.jit(lambda: module.clone(dtype=None).apply(variables, one, train=False))()
    assert exact.tokens.dtype == jnp.float32
    # bfloat16 has 8 bits, a relative 1/256 per operation on numbers around one.
    error = np.abs(fused.tokens[:1].astype(jnp.float32) - exact.tokens)[exact.mask]
    assert np.max(error) < 0.1
    assert np.median(error) < 0.03


@pytest.mark.parametrize('name', marked(fusion.__all__, {*CASES} - {'Concat', 'Gated', 'LowRank'}))
def test_four_modalities(name):
    case = case_of(name)
    features = encoded(modalities=tuple(MORE_TOKENS))
    fused = check_gradients(case.fusion, quick.parameters(case.fusion, features, noise=0.1, train=False), features)
    assert all_finite(fused)
    np.testing.assert_array_equal(fused.mask.any(axis=1), np.arange(ROWS) != EMPTY)


def test_dropout_acts_in_training_only_by_its_own_rng(case):
    plain = case.step(encoded())[1]
    first, again, other = (case.train(encoded(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert np.max(np.abs(first.tokens - other.tokens)) > 1e-3
    assert np.max(np.abs(first.tokens - plain.tokens)) > 1e-3
    np.testing.assert_array_equal(first.mask, plain.mask)
    assert all_finite((first, other))


def test_train_has_no_default(case):
    with pytest.raises(TypeError, match='train'):
        case.fusion.apply(case.variables, encoded())


BAD = [
    ({}, {}, 'a fusion needs at least one modality, got none'),
    (encoded(), {'pooling': 'max'}, r"\w+: pooling must be one of \('attention', 'mean'.*\), got 'max'"),
    (encoded(), {'absent': 'zero'}, r"\w+: absent must be one of \('neutral', 'token'\), got 'zero'"),
]


@pytest.mark.parametrize(
    ('name', 'features', 'arguments', 'message'),
    # Not all have a learned vector for an absent modality.
    [
        (name, *bad)
        for name in fusion.__all__
        for bad in BAD
        if {*bad[1]} <= {*getattr(fusion, name).__dataclass_fields__}
    ],
)
def test_bad_input_is_told_in_one_sentence(name, features, arguments, message):
    module = getattr(fusion, name)(width=WIDTH, **arguments)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.init(jax.random.key(0), features, train=False))
