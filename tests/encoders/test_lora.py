"""An adapted encoder is its base to the bit at first, and the same encoder with other weights later."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.core.tree import flatten_with_paths
from tests import quick
from tests.encoders.test_common import CASES, VOCABULARY, WIDTH, build, read_by

# Encoder -> the kernels to adapt: those of attention, dense layers, convolutions, recurrent and depthwise ones.
TARGETS = {
    'BERT': r'attention/(query|value)/kernel',
    'TextTransformer': 'kernel',
    'ResNet': 'conv',
    'EfficientNetLite0': 'depthwise',
    'TextLSTM': 'LSTM',
    'AudioConformer': 'kernel',
}


class Adapted:
    """An encoder, the same adapted, and parameters whose factors are all but zero."""

    def __init__(self, name: str):
        kind, _, arguments = CASES[name]
        vocabulary = {'vocab_size': VOCABULARY} if kind == 'text' else {}
        self.encoder = getattr(encoders, name)(width=WIDTH, **vocabulary, **arguments)
        self.adapted = encoders.LoRA(encoder=self.encoder, rank=2, alpha=3.0, targets=TARGETS[name])
        self.inputs = read_by(kind)
        self.variables = quick.parameters(self.adapted, self.inputs, train=False)
        self.run_base = quick.jit(functools.partial(self.encoder.apply, train=False))
        self.run = quick.jit(functools.partial(self.adapted.apply, train=False))
        self.statistics = {name: tree['base'] for name, tree in self.variables.items() if name != 'params'}


adapted_of = functools.cache(Adapted)


@pytest.fixture(params=TARGETS)
def it(request) -> Adapted:
    return adapted_of(request.param)


def test_with_b_at_zero_it_is_the_base_to_the_bit(it):
    def first(path, leaf):
        return jnp.zeros_like(leaf) if path[-1].key == 'b' else leaf

    params = jax.tree_util.tree_map_with_path(first, it.variables['params'])
    got = it.run({**it.variables, 'params': params}, it.inputs)
    expected = it.run_base({'params': params['base'], **it.statistics}, it.inputs)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_merged_it_is_the_base_with_other_weights(it):
    params = it.variables['params']
    before = jax.tree.map(np.copy, params)
    merged = it.adapted.merge(params)
    got = it.run(it.variables, it.inputs)
    expected = it.run_base({'params': merged, **it.statistics}, it.inputs)
    # The same sums, in two programs.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), got, expected)
    unadapted = it.run_base({'params': params['base'], **it.statistics}, it.inputs)
    assert np.max(np.abs(unadapted.tokens - got.tokens)) > 1e-2
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_merge_adds_the_product_and_unmerge_takes_it_away(it):
    params = it.variables['params']
    merged, base, lora = (
        flatten_with_paths(tree) for tree in (it.adapted.merge(params), params['base'], params['lora'])
    )
    targets = {path.rpartition('/')[0] for path in lora}
    for path, kernel in base.items():
        expected = np.asarray(kernel, np.float64)
        if path in targets:
            product = lora[f'{path}/a'].astype(np.float64) @ lora[f'{path}/b'].astype(np.float64)
            expected = expected + 3.0 / 2 * product.reshape(kernel.shape)
        np.testing.assert_allclose(merged[path], expected, rtol=1e-5, atol=1e-6)
    again = it.adapted.unmerge(it.adapted.merge(params), params['lora'])
    jax.tree.map(np.testing.assert_array_equal, again['lora'], params['lora'])
    # Two roundings of numbers of size 1.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), again['base'], params['base'])


@pytest.mark.parametrize('name', [name for name in CASES if name != 'LoRA'])
def test_every_kernel_of_every_encoder_can_be_adapted(name):
    kind, _, arguments = CASES[name]
    vocabulary = {'vocab_size': VOCABULARY} if kind == 'text' else {}
    adapted = encoders.LoRA(
        encoder=build(name.split(',')[0], width=WIDTH, **vocabulary, **arguments), rank=1, targets=''
    )
    inputs = read_by(kind)
    variables = jax.eval_shape(lambda: adapted.init(jax.random.key(0), inputs, train=False))
    kernels = {path for path in flatten_with_paths(variables['params']['base']) if path.endswith('kernel')}
    factors, structure = jax.tree.flatten(variables['params']['lora'])
    assert len(factors) == 2 * len(kernels) > 0

    def apply(factors, variables):
        params = {**variables['params'], 'lora': structure.unflatten(factors)}
        return adapted.apply({**variables, 'params': params}, inputs, train=False)

    jaxpr = jax.make_jaxpr(apply)(factors, variables).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    assert all(id(variable) in used for variable in jaxpr.invars[: len(factors)])


def test_the_first_factors():
    adapted = encoders.LoRA(
        encoder=encoders.BERT(vocab_size=5, width=64, depth=1, num_heads=4), rank=8, targets='kernel'
    )
    variables = jax.jit(functools.partial(adapted.init, train=False))(jax.random.key(0), read_by('text'))
    shapes = {
        'attention/query': (64, 64),
        'attention/key': (64, 64),
        'attention/value': (64, 64),
        'attention/out': (64, 64),
        'mlp_in': (64, 256),
        'mlp_out': (256, 64),
    }
    factors = flatten_with_paths(variables['params']['lora']['layer_0'])
    assert set(factors) == {f'{name}/kernel/{factor}' for name in shapes for factor in 'ab'}
    for name, (inputs, outputs) in shapes.items():
        a, b = factors[f'{name}/kernel/a'], factors[f'{name}/kernel/b']
        assert (a.shape, b.shape) == ((inputs, 8), (8, outputs))
        assert not b.any()
        # 512 numbers or more: their variance is known to a tenth.
        assert np.var(a) * 3 * inputs == pytest.approx(1, abs=0.3)
    assert not np.array_equal(factors['attention/query/kernel/a'], factors['attention/value/kernel/a'])
    assert adapted.width == 64


def test_queries_read_one_axis_and_the_output_two():
    # With 5 heads of 2 channels the axes of a kernel [10, 5, 2] or [5, 2, 10] cannot be confused.
    encoder = encoders.BERT(vocab_size=VOCABULARY, width=WIDTH, depth=1, num_heads=5, max_length=12)
    adapted = encoders.LoRA(encoder=encoder, rank=3, targets='attention/(query|out)/kernel')
    params = jax.eval_shape(lambda: adapted.init(jax.random.key(0), read_by('text'), train=False))['params']
    attention = params['lora']['layer_0']['attention']
    assert {name: part['kernel']['a'].shape for name, part in attention.items()} == {'query': (10, 3), 'out': (10, 3)}
    assert params['base']['layer_0']['attention']['query']['kernel'].shape == (10, 5, 2)


def test_dropout_statistics_and_hidden_states_pass_through():
    it = adapted_of('ResNet')
    _, after = it.adapted.apply(
        it.variables, it.inputs, train=True, mutable='batch_stats', rngs={'dropout': jax.random.key(0)}
    )
    for path, value in flatten_with_paths(after['batch_stats']['base']).items():
        assert not np.array_equal(value, flatten_with_paths(it.statistics['batch_stats'])[path]), path
    it = adapted_of('BERT')
    one, two = (
        it.adapted.apply(it.variables, it.inputs, train=True, rngs={'dropout': jax.random.key(i)}) for i in (0, 1)
    )
    assert np.max(np.abs(one.tokens - two.tokens)) > 1e-3
    _, sown = it.adapted.apply(it.variables, it.inputs, train=False, mutable='intermediates')
    assert len(sown['intermediates']['base']['hidden_states']) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'targets': 'attn'}, r"LoRA: targets 'attn' matches no kernel; there are \['layer_0/attention/key/kernel', "),
        ({'targets': 'mlp('}, r"LoRA: targets 'mlp\(' is no regular expression: missing \)"),
        ({'targets': 'embedding'}, "targets 'embedding' matches no kernel"),
        (
            {'rank': 11},
            "'layer_0/attention/query/kernel' has 10 inputs and 10 outputs, so the rank must be from 1 to 10",
        ),
    ],
)
def test_bad_input_is_named(options, message):
    encoder = encoders.BERT(vocab_size=VOCABULARY, width=WIDTH, depth=1, num_heads=2, max_length=12)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: encoders.LoRA(encoder=encoder, **options).init(jax.random.key(0), read_by('text'), train=False)
        )
