"""The layers of every encoder, and the rates that fall from layer to layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import encoders
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.training.layers import decay_factors
from mmtl_jax.training.optimizer import make_optimizer
from tests.encoders.test_common import CASES, VOCABULARY, WIDTH, read_by

# Encoder and its arguments -> part of its tree -> distance from the top. All other parts of a tree are to be told too.
TABLE = {
    'BERT': (
        {'depth': 2, 'num_heads': 2},
        {'word_embedding': 3, 'embedding_norm': 3, 'layer_0': 2, 'layer_1': 1},
    ),
    'ViT': (
        {'depth': 2, 'num_heads': 2, 'hidden_width': 8, 'patch': 4, 'image_size': 8},
        {'class_token': 3, 'patch_embedding': 3, 'position_embedding': 3, 'layer_0': 2, 'layer_1': 1, 'norm': 0,
         'projection': 0, 'projection_norm': 0},
    ),
    'ResNet': (
        {'depth': 18, 'stage_sizes': (1, 2), 'base_width': 4},
        {'stem_conv': 4, 'stem_norm': 4, 'stage1_block1': 3, 'stage2_block1': 2, 'stage2_block2': 1, 'projection': 0},
    ),
    'VGG16': (
        {'stage_sizes': (1, 2), 'stage_widths': (4, 4), 'norm': 'group'},
        {'stage1_conv1': 3, 'stage1_norm1': 3, 'stage2_conv1': 2, 'stage2_conv2': 1, 'stage2_norm2': 1,
         'projection_norm': 0},
    ),
    'EfficientNetLite0': (
        {'stages': ((10, 3, 1, 1, 8),), 'stem_width': 8, 'head_width': 8},
        {'stem_norm': 11, 'block1': 10, 'block2': 9, 'block10': 1, 'head_conv': 0, 'projection': 0},
    ),
    'TextTransformer': ({}, {'embedding': 3, 'TransformerBlock_0': 2, 'TransformerBlock_1': 1, 'LayerNorm_0': 0}),
    'AudioConformer': ({'depth': 2}, {'Dense_0': 3, 'ConformerBlock_0': 2, 'ConformerBlock_1': 1}),
    'AudioCNN': (
        {'depth': 3},
        {'Dense_0': 4, 'LayerNorm_0': 4, 'ResidualConv_0': 3, 'GlobalContext_0': 2, 'ResidualConv_1': 2,
         'ResidualConv_2': 1, 'LayerNorm_1': 0},
    ),
    'TextLSTM': ({'depth': 2}, {'embedding': 3, 'LSTM_0': 2, 'LSTM_1': 1, 'Dense_0': 0, 'LayerNorm_0': 0}),
    'AudioLSTM': (
        {},
        {'Dense_0': 3, 'LayerNorm_0': 3, 'LSTM_0': 2, 'LSTM_1': 1, 'Dense_1': 0, 'LayerNorm_1': 0},
    ),
    'ImageCNN': ({}, {'Conv_0': 4, 'GroupNorm_0': 4, 'Conv_3': 1, 'Dense_0': 0, 'LayerNorm_0': 0}),
    'ImageResNet': (
        {'stage_sizes': (1, 2)},
        {'Conv_0': 4, 'GroupNorm_0': 4, 'BasicBlock_0': 3, 'BasicBlock_2': 1, 'Dense_0': 0, 'LayerNorm_0': 0},
    ),
}  # fmt: skip


def paths_of(encoder, kind):
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), read_by(kind), train=False))
    return [f'encoders/it/{path}' for path in flatten_with_paths(shapes['params'])]


def build(name, arguments):
    kind = CASES[name][0]
    vocabulary = {'vocab_size': VOCABULARY} if kind == 'text' else {}
    return getattr(encoders, name)(width=WIDTH, **vocabulary, **arguments), kind


@pytest.mark.parametrize('name', TABLE)
def test_the_factor_falls_from_layer_to_layer(name):
    arguments, expected = TABLE[name]
    factors = decay_factors(paths_of(*build(name, arguments)), 'encoders/it', 0.5)
    found = {}
    for path, factor in factors.items():
        assert found.setdefault(path.split('/')[2], factor) == factor, path
    assert {part: found[part] for part in expected} == {part: 0.5**distance for part, distance in expected.items()}
    top, bottom = min(expected.values()), max(expected.values())
    assert all(0.5**bottom <= factor <= 0.5**top for factor in found.values())


@pytest.mark.parametrize('name', sorted({case.split(',')[0] for case in CASES} - {*TABLE, 'LoRA'}))
def test_every_other_encoder_has_layers_too_or_is_refused(name):
    encoder, kind = build(name, CASES[name][2])
    paths = paths_of(encoder, kind)
    if any('layer_0/' in path for path in paths):
        factors = decay_factors(paths, 'encoders/it', 0.5)
        assert {factors[path] for path in paths if f'layer_{encoder.depth - 1}/' in path} == {0.5}
        assert min(factors.values()) == 0.5 ** (encoder.depth + 1)
    else:
        with pytest.raises(ValueError, match='layer_decay needs layers with numbers, such as layer_0, and'):
            decay_factors(paths, 'encoders/it', 0.5)


def test_the_optimizer_applies_it():
    params = {
        'encoders': {
            'caption': {
                'word_embedding': jnp.ones(2),
                'base': {'layer_0': jnp.ones(2)},
                'lora': {'layer_0': jnp.ones(2), 'layer_1': jnp.ones(2)},
            },
            'image': {'layer_0': jnp.ones(2)},
        }
    }
    optimizer = make_optimizer('sgd', optax.constant_schedule(1.0), layer_decay={'encoders/caption': 0.5})
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = {path: -float(update[0]) for path, update in flatten_with_paths(updates).items()}
    assert found == {
        'encoders/caption/word_embedding': 0.125,
        'encoders/caption/base/layer_0': 0.25,
        'encoders/caption/lora/layer_0': 0.25,
        'encoders/caption/lora/layer_1': 0.5,
        'encoders/image/layer_0': 1.0,
    }


@pytest.mark.parametrize(
    ('layer_decay', 'message'),
    [
        ({'encoders/speech': 0.8}, r"layer_decay 'encoders/speech' is the path of no parameter .* \['encoders/text'\]"),
        ({'encoders/text': 1.5}, "the layer_decay of 'encoders/text' is a factor above 0 and at most 1, got 1.5"),
        ({'encoders': 0.8}, r"'encoders' has \['text'\]; give rates by path for it"),
    ],
)
def test_bad_input_is_named(layer_decay, message):
    params = {'encoders': {'text': {'layer_0': np.ones(2)}}}
    with pytest.raises(ValueError, match=message):
        make_optimizer('sgd', optax.constant_schedule(1.0), layer_decay=layer_decay).init(params)
