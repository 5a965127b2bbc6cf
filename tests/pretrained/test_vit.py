"""The ViT that comes out of published weights computes what plain numpy computes from them."""

import json
import math

import jax
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.pretrained.vit import vit_names
from tests import quick

HEADS, WIDTH, PATCH = 2, 12, 4
CONFIG = {
    'model_type': 'vit',
    'hidden_size': WIDTH,
    'num_hidden_layers': 2,
    'num_attention_heads': HEADS,
    'intermediate_size': 20,
    'patch_size': PATCH,
    'image_size': 2 * PATCH,
    'layer_norm_eps': 1e-12,
}
# A row and a column of pixels stay unseen.
IMAGES = np.random.default_rng(0).uniform(size=(2, 2 * PATCH + 1, 2 * PATCH + 1, 3)).astype(np.float32)


@pytest.fixture
def weights():
    """Returns random arrays by the names of `transformers`."""
    random = np.random.default_rng(1)
    encoder = encoders.ViT(None, PATCH, 2 * PATCH, WIDTH, 2, HEADS, 20)
    params = quick.parameters(encoder, IMAGES, train=False)['params']
    arrays = vit_names(encoder, prefix='vit.').to_original(params)
    for name, array in arrays.items():
        arrays[name] = (array + random.normal(size=array.shape) * 0.2).astype(np.float32)
    shapes = {'classifier.weight': (5, WIDTH), 'classifier.bias': (5,)}
    return arrays | {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, weights, config=CONFIG):
    pretrained.write_weights(folder / 'model.safetensors', weights)
    if config is not None:
        (folder / 'config.json').write_text(json.dumps(config))
    return folder


def as_timm(weights):
    """Returns the same arrays by timm's names, queries, keys and values in one."""
    renamed = {
        'vit.embeddings.cls_token': 'cls_token',
        'vit.embeddings.position_embeddings': 'pos_embed',
        'vit.embeddings.patch_embeddings.projection.': 'patch_embed.proj.',
        'vit.encoder.layer.': 'blocks.',
        'vit.layernorm.': 'norm.',
        'layernorm_before': 'norm1',
        'layernorm_after': 'norm2',
        'attention.output.dense': 'attn.proj',
        'intermediate.dense': 'mlp.fc1',
        'output.dense': 'mlp.fc2',
        'classifier': 'head',
    }
    arrays = {}
    for name, array in weights.items():
        if 'attention.attention' in name:
            if 'query' in name:
                parts = [weights[name.replace('query', part)] for part in ('query', 'key', 'value')]
                name = name.replace('vit.encoder.layer', 'blocks').replace('attention.attention.query', 'attn.qkv')
                arrays[name] = np.concatenate(parts)
            continue
        for old, new in renamed.items():
            name = name.replace(old, new)
        arrays[name] = array
    return arrays


def normalise(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']


def dense(x, weights, name):
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def plain_vit(weights, images):
    """Returns all hidden states, the last one normalised, in float64."""
    weights = {name.removeprefix('vit.'): array.astype(np.float64) for name, array in weights.items()}
    x = 2 * images[:, : 2 * PATCH, : 2 * PATCH].astype(np.float64) - 1
    x = x.reshape(len(x), 2, PATCH, 2, PATCH, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(x), 4, -1)
    stem = 'embeddings.patch_embeddings.projection'
    x = x @ weights[f'{stem}.weight'].reshape(WIDTH, -1).T + weights[f'{stem}.bias']
    first = np.broadcast_to(weights['embeddings.cls_token'], (len(x), 1, WIDTH))
    x = np.concatenate([first, x], 1) + weights['embeddings.position_embeddings']
    states = [x]
    for layer in range(CONFIG['num_hidden_layers']):
        name = f'encoder.layer.{layer}'
        inner = normalise(x, weights, f'{name}.layernorm_before')
        query, key, value = (
            dense(inner, weights, f'{name}.attention.attention.{part}').reshape(*x.shape[:2], HEADS, -1)
            for part in ('query', 'key', 'value')
        )
        scores = np.exp(np.einsum('bqhd,bkhd->bhqk', query, key) / math.sqrt(WIDTH / HEADS))
        mixed = np.einsum('bhqk,bkhd->bqhd', scores / scores.sum(-1, keepdims=True), value).reshape(x.shape)
        x = x + dense(mixed, weights, f'{name}.attention.output.dense')
        inner = dense(normalise(x, weights, f'{name}.layernorm_after'), weights, f'{name}.intermediate.dense')
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = x + dense(inner, weights, f'{name}.output.dense')
        states.append(x)
    return [*states, normalise(x, weights, 'layernorm')]


def test_hidden_states_are_those_of_plain_numpy(tmp_path, weights):
    tower = pretrained.vit(write(tmp_path, weights))
    forward = quick.jit(
        lambda images: tower.encoder.apply(tower.variables, images, train=False, mutable='intermediates')
    )
    features, sown = forward(IMAGES)
    *states, last = plain_vit(weights, IMAGES)
    for got, expected in zip(sown['intermediates']['hidden_states'], states, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(features.tokens[:, 0], last[:, 0], rtol=1e-5, atol=1e-5 * np.abs(last).max())
    patches = features.maps[0].reshape(2, 4, WIDTH)
    np.testing.assert_allclose(patches, last[:, 1:], rtol=1e-5, atol=1e-5 * np.abs(last).max())
    head, params = pretrained.image_classifier(tower)
    expected = dense(last[:, 0], weights, 'classifier')
    np.testing.assert_allclose(head.apply({'params': params}, features, train=False), expected, rtol=1e-4, atol=1e-4)


def test_timms_names_give_the_same_parameters(tmp_path, weights):
    tower = pretrained.vit(write(tmp_path / 'timm', as_timm(weights), config=None), num_heads=HEADS)
    expected = pretrained.vit(write(tmp_path / 'transformers', weights))
    assert tower.encoder == expected.encoder.clone(epsilon=1e-6)
    jax.tree.map(np.testing.assert_array_equal, tower.params, expected.params)
    assert tower.report.unused == ('head.bias', 'head.weight')


@pytest.mark.parametrize('layout', [dict, as_timm])
def test_round_trip_to_the_bit(tmp_path, weights, layout):
    weights = layout(weights)
    config = CONFIG if layout is dict else None
    tower = pretrained.vit(write(tmp_path / 'in', weights, config), num_heads=HEADS)
    tower.export(tmp_path / 'out')
    exported = pretrained.read_weights(tmp_path / 'out')
    assert set(exported) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'model_type': 'deit'}, "is a model of type 'deit'; pretrained.vit reads vit"),
        ({'hidden_act': 'relu'}, "is a ViT with hidden_act='relu'; encoders.ViT has 'gelu'"),
        ({'hidden_size': None}, "lacks 'hidden_size'"),
        ({'num_hidden_layers': 3}, r'does not fit ViT: 16 missing \(vit.encoder.layer.2'),
        ({'image_size': 12}, r'does not fit ViT: .*position_embeddings: \(1, 5, 12\), expected \(1, 10, 12\)'),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tmp_path, weights, config, message):
    config = {name: value for name, value in {**CONFIG, **config}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        pretrained.vit(write(tmp_path, weights, config))


def test_other_weights_are_no_vit(tmp_path, weights):
    timm = as_timm(weights)
    with pytest.raises(ValueError, match=r'holds no ViT: there is neither patch_embed\.proj\.weight nor'):
        pretrained.vit(write(tmp_path, {'conv1.weight': weights['classifier.bias']}))
    del timm['pos_embed']
    with pytest.raises(ValueError, match='holds no whole ViT: pos_embed is missing'):
        pretrained.vit(write(tmp_path, timm, config=None))
