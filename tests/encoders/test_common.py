"""What holds for every encoder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Features, Ragged
from tests import quick

ROWS, LENGTH, WIDTH, VOCABULARY = 4, 7, 10, 12
LENGTHS = np.array([7, 3, 0, 5])
DROPOUT = {'dropout_rate': 0.5}
CLIP_TEXT = {'hidden_width': 12, 'depth': 1, 'num_heads': 2, 'max_length': 12, 'shared_width': 6}
FRONT_END = {'sample_rate': 800, 'num_mels': 4}
WAV2VEC2 = {
    'depth': 1,
    'num_heads': 2,
    'conv_widths': (8, 6),
    'conv_kernels': (10, 4),
    'conv_strides': (5, 4),
    'position_kernel': 4,
    'position_groups': 2,
}

# One row per encoder and variant: what it reads, the real tokens of each row, and arguments beside the width.
CASES = {
    'ImageCNN': ('image', [1, 1, 1, 1], {'stage_widths': (8, 12), **DROPOUT}),
    'ImageCNN, a token per cell': (
        'image',
        [6, 6, 6, 6],
        {'pooling': 'none', 'patch': 1, 'stage_widths': (8, 12), **DROPOUT},
    ),
    'ImageResNet': ('image', [1, 1, 1, 1], {'stage_sizes': (2,), 'pooling': 'mean', **DROPOUT}),
    'ResNet': ('image', [1, 1, 1, 1], {'depth': 18, 'stage_sizes': (1, 1), 'base_width': 8, **DROPOUT}),
    'ResNet, bottlenecks and GroupNorm': (
        'image',
        [6, 6, 6, 6],
        {'stage_sizes': (1,), 'base_width': 8, 'norm': 'group', 'pooling': 'none', **DROPOUT},
    ),
    'EfficientNetLite0': (
        'image',
        [1, 1, 1, 1],
        {'stages': ((1, 3, 1, 1, 8), (2, 5, 2, 2, 12)), 'stem_width': 8, 'head_width': 16, **DROPOUT},
    ),
    'VGG16': ('image', [1, 1, 1, 1], {'stage_sizes': (1, 2), 'stage_widths': (6, 8), **DROPOUT}),
    'ViT': (
        'image',
        [1, 1, 1, 1],
        {'patch': 4, 'image_size': 8, 'hidden_width': 12, 'depth': 1, 'num_heads': 2, **DROPOUT},
    ),
    'ViT, a token per patch, other sides': (
        'image',
        [16, 16, 16, 16],
        {'patch': 2, 'image_size': 6, 'hidden_width': 12, 'depth': 1, 'num_heads': 2, 'pooling': 'none', **DROPOUT},
    ),
    'CLIPImage': (
        'image',
        [1, 1, 1, 1],
        {'patch': 4, 'image_size': 8, 'hidden_width': 12, 'depth': 1, 'num_heads': 2, 'shared_width': 6, **DROPOUT},
    ),
    'BagOfEmbeddings': ('text', [1, 1, 0, 1], {'depth': 1, 'token_dropout_rate': 0.3, **DROPOUT}),
    'BagOfEmbeddings, narrow': ('text', [1, 1, 0, 1], {'embedding_width': 6, **DROPOUT}),
    'TextLSTM': ('text', [7, 3, 0, 5], DROPOUT),
    'BERT': ('text', [7, 3, 0, 5], {'depth': 1, 'num_heads': 2, 'max_length': 12, **DROPOUT}),
    'CLIPText': ('text', [1, 1, 0, 1], {**CLIP_TEXT, **DROPOUT}),
    'CLIPText, a token per id': ('text', [7, 3, 0, 5], {**CLIP_TEXT, 'pooling': 'none', **DROPOUT}),
    'TextTransformer': ('text', [7, 3, 0, 5], {'depth': 1, **DROPOUT}),
    'AudioCNN': ('frames', [4, 2, 0, 3], {'depth': 1, 'stack': 2, **DROPOUT}),
    'AudioCNN, waveform': ('waveform', [32, 12, 0, 22], {'depth': 1, 'stack': 1, 'front_end': FRONT_END, **DROPOUT}),
    'AudioLSTM': ('frames', [4, 2, 0, 3], {'depth': 1, 'stack': 2, **DROPOUT}),
    'AudioConformer': ('frames', [4, 2, 0, 3], {'depth': 1, 'stack': 2, 'kernel_size': 3, **DROPOUT}),
    'Wav2Vec2': ('waveform', [13, 5, 0, 9], {**WAV2VEC2, **DROPOUT}),
    'Wav2Vec2, pre-norm': (
        'waveform',
        [13, 5, 0, 9],
        {'conv_norm': 'layer', 'conv_bias': True, 'norm_first': True, **WAV2VEC2, **DROPOUT},
    ),
    'Whisper': ('frames', [4, 2, 0, 3], {'depth': 1, 'num_heads': 2, 'max_length': 6, 'num_mels': 6, **DROPOUT}),
    'TabularMLP': ('table', [1, 1, 1, 1], DROPOUT),
    'LoRA': ('text', [7, 3, 0, 5], {'depth': 1, 'num_heads': 2, 'max_length': 12, **DROPOUT}),
    'Precomputed': ('frames', [7, 3, 0, 5], {'depth': 1, 'input_dropout_rate': 0.2, **DROPOUT}),
}

# A softmax does not see what all its scores have in common, and without rotary positions that is the key's bias.
# Whisper's positions do not learn.
WITHOUT_GRADIENT = (
    'params/layer_0/attention/key/bias',
    'params/base/layer_0/attention/key/bias',
    'params/fixed_position_embedding',
)


# Those whose arithmetic in bfloat16 the quick tests run, one for each kind of layer; the slow ones run all.
IN_BFLOAT16 = {'ImageCNN', 'ResNet', 'BagOfEmbeddings', 'TextTransformer', 'AudioCNN', 'AudioLSTM', 'TabularMLP'}


def read_by(kind: str) -> jax.Array | Ragged:
    """Returns an input of the encoder's kind; row 2 of a Ragged is empty, row 1 of a table lacks every cell."""
    generator = np.random.default_rng(0)
    if kind == 'image':
        return jnp.asarray(generator.uniform(size=(ROWS, 9, 8, 3)), jnp.float32)
    if kind == 'table':
        table = generator.normal(size=(ROWS, 3))
        table[0, 1] = table[1] = np.nan
        return jnp.asarray(table, jnp.float32)
    per_step = 40 if kind == 'waveform' else 1
    mask = np.arange(LENGTH * per_step)[None] < LENGTHS[:, None] * per_step
    if kind == 'text':
        return Ragged(jnp.asarray(generator.integers(1, VOCABULARY, mask.shape), jnp.int32), jnp.asarray(mask))
    shape = mask.shape if kind == 'waveform' else (*mask.shape, 6)
    return Ragged(jnp.asarray(generator.normal(size=shape), jnp.float32), jnp.asarray(mask))


def spoil(inputs: jax.Array | Ragged, fill: float) -> jax.Array | Ragged:
    """Returns the same inputs with `fill`, or an id out of range, in masked positions."""
    if not isinstance(inputs, Ragged):
        return inputs
    mask = inputs.mask.reshape(inputs.mask.shape + (1,) * (inputs.values.ndim - 2))
    if jnp.issubdtype(inputs.values.dtype, jnp.integer):
        fill = np.iinfo(np.int32).min if np.isnan(fill) else VOCABULARY + 5
    return Ragged(jnp.where(mask, inputs.values, jnp.asarray(fill, inputs.values.dtype)), inputs.mask)


def lengthen(inputs: jax.Array | Ragged, extra: int) -> jax.Array | Ragged:
    """Returns the same inputs with `extra` masked positions at the end."""
    if not isinstance(inputs, Ragged):
        return inputs
    return jax.tree.map(lambda array: jnp.pad(array, [(0, 0), (0, extra)] + [(0, 0)] * (array.ndim - 2)), inputs)


def real(features: Features) -> list[np.ndarray]:
    """Returns each row's real tokens."""
    return [np.asarray(row)[mask] for row, mask in zip(features.tokens, features.mask, strict=True)]


def assert_close(a, b):
    # Another shape or place in the batch sums in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), a, b)


def build(name: str, **arguments) -> nn.Module:
    """Returns an encoder; `LoRA` stands around a BERT with the arguments."""
    if name == 'LoRA':
        return encoders.LoRA(encoder=encoders.BERT(**arguments), rank=2)
    return getattr(encoders, name)(**arguments)


class Case:
    """One encoder with its parameters and compiled functions, shared by the tests."""

    def __init__(self, name: str):
        self.kind, self.real_tokens, arguments = CASES[name]
        if self.kind == 'text':
            arguments = {'vocab_size': VOCABULARY, **arguments}
        self.encoder = build(name.split(',')[0], width=WIDTH, **arguments)
        self.inputs = read_by(self.kind)
        self.variables = quick.parameters(self.encoder, self.inputs, train=False)
        self.traces = 0
        self._step = quick.jit(jax.grad(self._objective, has_aux=True))
        self._train = quick.jit(self._apply_in_training)
        self._forward = quick.jit(functools.partial(self.encoder.apply, train=False))

    def _objective(self, variables, inputs):
        """Returns a scalar that sees every real token and every map, and the features."""
        self.traces += 1
        features = self.encoder.apply(variables, inputs, train=False)
        tokens = jnp.sum(jnp.where(features.mask[..., None], jnp.sin(features.tokens + 0.1), 0))
        return tokens + sum(jnp.sum(level) for level in features.maps), features

    def _apply_in_training(self, variables, inputs, key):
        kept = [name for name in variables if name != 'params']
        return self.encoder.apply(variables, inputs, train=True, rngs={'dropout': key}, mutable=kept)[0]

    def apply(self, inputs) -> Features:
        """Returns features without dropout."""
        return self._step(self.variables, inputs)[1]

    def gradients(self, inputs):
        """Returns the gradient of the objective by the variables."""
        return self._step(self.variables, inputs)[0]

    def train(self, inputs, seed: int) -> Features:
        """Returns features with dropout."""
        return self._train(self.variables, inputs, jax.random.key(seed))

    def apply_to_another_shape(self, inputs) -> Features:
        """Returns features without dropout, and compiles nothing else for the new shape."""
        return self._forward(self.variables, inputs)


case_of = functools.cache(Case)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return case_of(request.param)


def test_every_encoder_has_a_case():
    assert {name.split(',')[0] for name in CASES} == set(encoders.__all__)


@pytest.mark.parametrize('name', [name for name in encoders.__all__ if name != 'LoRA'])
def test_an_encoder_builds_from_its_width(name):
    kind = CASES[name][0]
    encoder = getattr(encoders, name)(width=9, **({'vocab_size': VOCABULARY} if kind == 'text' else {}))
    # The default patches and receptive fields are larger than the inputs of the other tests.
    inputs = jnp.zeros((ROWS, 33, 32, 3)) if kind == 'image' else read_by(kind)
    inputs = lengthen(inputs, 200) if kind == 'waveform' else inputs
    features, _ = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), inputs, train=False))
    assert features.tokens.shape[-1] == 9


def test_tokens_and_mask_are_as_documented(case):
    features = case.apply(case.inputs)
    tokens = features.tokens.shape[1]
    assert features.tokens.shape == (ROWS, tokens, WIDTH)
    assert features.tokens.dtype == jnp.float32
    assert features.mask.dtype == bool
    np.testing.assert_array_equal(features.mask, np.arange(tokens)[None] < np.array(case.real_tokens)[:, None])
    assert all_finite(features)


def test_only_images_have_maps_the_finest_first(case):
    maps = case.apply(case.inputs).maps
    assert bool(maps) == (case.kind == 'image')
    sides = [level.shape[1:3] for level in maps]
    assert sides == sorted(sides, reverse=True)
    assert all(level.shape[0] == ROWS and level.ndim == 4 for level in maps)


def test_parameters_are_float32(case):
    assert {leaf.dtype for leaf in jax.tree.leaves(case.variables)} == {np.dtype('float32')}
    assert set(case.variables) <= {'params', 'batch_stats'}


def test_tokens_have_unit_scale(case):
    squares = [np.mean(tokens**2, axis=-1) for tokens in real(case.apply(case.inputs))]
    if case.kind == 'table':
        # No LayerNorm can scale the zeros of a row without any cell, before the missing cells have learned.
        del squares[1]
    # The LayerNorm adds 1e-6 to the variance, which is small in the encoder of waveforms.
    np.testing.assert_allclose(np.concatenate(squares), 1, atol=0.01)


def test_gradients_are_finite_and_reach_every_parameter(case):
    for path, gradient in flatten_with_paths(case.gradients(case.inputs)).items():
        assert np.isfinite(gradient).all(), path
        if path in WITHOUT_GRADIENT:
            continue
        assert np.max(np.abs(gradient)) > 1e-6, path


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_masked_positions_change_nothing_to_the_bit(case, fill):
    clean, spoilt = spoil(case.inputs, 0), spoil(case.inputs, fill)
    jax.tree.map(np.testing.assert_array_equal, case.apply(clean), case.apply(spoilt))
    jax.tree.map(np.testing.assert_array_equal, case.gradients(clean), case.gradients(spoilt))
    jax.tree.map(np.testing.assert_array_equal, case.train(clean, seed=0), case.train(spoilt, seed=0))


def test_a_row_is_the_same_alone_and_padded_further(case):
    together = case.apply(case.inputs)
    alone = case.apply_to_another_shape(lengthen(jax.tree.map(lambda array: array[:1], case.inputs), 4))
    assert_close(real(alone), real(together)[:1])
    assert_close(alone.maps, tuple(level[:1] for level in together.maps))


def test_rows_do_not_see_each_other(case):
    order = np.array([2, 0, 3, 1])
    permuted = case.apply(jax.tree.map(lambda array: array[order], case.inputs))
    assert_close(permuted, jax.tree.map(lambda array: array[order], case.apply(case.inputs)))


@pytest.mark.parametrize('case', [name for name in CASES if CASES[name][0] not in ('image', 'table')], indirect=True)
def test_a_batch_of_empty_rows_is_finite_without_gradient_and_without_another_compile(case):
    case.apply(case.inputs)
    traces = case.traces
    empty = Ragged(case.inputs.values, jnp.zeros_like(case.inputs.mask))
    features = case.apply(empty)
    assert all_finite(features)
    assert not features.mask.any()
    assert not any(gradient.any() for gradient in jax.tree.leaves(case.gradients(empty)))
    assert case.traces == traces


def test_dropout_acts_in_training_only_by_its_own_rng(case):
    plain = case.apply(case.inputs)
    first, again, other = (case.train(case.inputs, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert np.max(np.abs(first.tokens - other.tokens)) > 1e-3
    assert np.max(np.abs(first.tokens - plain.tokens)) > 1e-3
    np.testing.assert_array_equal(first.mask, plain.mask)
    assert all_finite((first, other))


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if name in IN_BFLOAT16 else pytest.mark.slow)
        for name in CASES
        if name.split(',')[0] != 'LoRA'
    ],
)
def test_bfloat16_is_near_float32_and_features_and_gradients_stay_float32(name):
    case = case_of(name)
    encoder = case.encoder.clone(dtype='bfloat16')

    def objective(variables):
        features = encoder.apply(variables, case.inputs, train=False)
        return jnp.sum(jnp.sin(jnp.where(features.mask[..., None], features.tokens, 0) + 0.1)), features

    gradients, features = quick.jit(jax.grad(objective, has_aux=True))(case.variables)
    exact = case.apply(case.inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, features.tokens, features.maps))} == {
        np.dtype('float32')
    }
    assert all_finite((gradients, features))
    # bfloat16 has 8 bits, a relative 1/256 per operation on numbers around one; some LayerNorm of these narrow layers
    # divides by little.
    errors = np.abs(np.concatenate(real(features)) - np.concatenate(real(exact)))
    assert 0 < np.median(errors) < 0.05, 'nothing is computed in bfloat16, or not what float32 gives'
    assert np.mean(errors) < 0.1


def test_train_has_no_default(case):
    with pytest.raises(TypeError, match='train'):
        case.encoder.apply(case.variables, case.inputs)
