"""The VGG16 that comes out of published weights computes what plain numpy computes from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.encoders.resnet import IMAGENET_DEVIATION, IMAGENET_MEAN
from tests import quick

FIELDS = {'stage_sizes': (1, 2), 'stage_widths': (4, 6)}
# The place in torchvision's list of layers -> channels in and out, the norm being the next place.
PLACES = {False: {0: (3, 4), 3: (4, 6), 5: (6, 6)}, True: {0: (3, 4), 4: (4, 6), 7: (6, 6)}}
IMAGES = np.random.default_rng(0).uniform(size=(2, 9, 7, 3)).astype(np.float32)


def draw_weights(norm):
    """Returns random arrays by the names of torchvision's `vgg16_bn`, or of its `vgg16`."""
    random = np.random.default_rng(1)
    weights = {'classifier.0.weight': random.normal(size=(3, 5)), 'classifier.0.bias': random.normal(size=3)}
    for place, (inputs, outputs) in PLACES[norm].items():
        weights[f'features.{place}.weight'] = random.normal(size=(outputs, inputs, 3, 3)) / 4
        weights[f'features.{place}.bias'] = random.normal(size=outputs)
        for name in ('weight', 'bias', 'running_mean', 'running_var') if norm else ():
            weights[f'features.{place + 1}.{name}'] = random.uniform(0.5, 1.5, outputs)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def plain_vgg(weights, images, norm):
    """Returns the maps in float64."""
    x, maps = (images.astype(np.float64) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION), []
    first, *_, last = PLACES[norm]
    for place in PLACES[norm]:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.einsum('bhwcij,ocij->bhwo', windows, weights[f'features.{place}.weight'])
        x = x + weights[f'features.{place}.bias']
        if norm:
            scale, bias, mean, variance = (
                weights[f'features.{place + 1}.{name}'] for name in ('weight', 'bias', 'running_mean', 'running_var')
            )
            x = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
        x = np.maximum(x, 0)
        if place in (first, last):
            height, width = x.shape[1] // 2, x.shape[2] // 2
            x = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1).max((2, 4))
            maps.append(x)
    return maps


@pytest.mark.parametrize('norm', [False, True])
def test_maps_are_those_of_plain_numpy_and_weights_return_to_the_bit(tmp_path, norm):
    weights = draw_weights(norm)
    pretrained.write_weights(tmp_path / 'in.safetensors', weights)
    tower = pretrained.vgg16(tmp_path / 'in.safetensors', **FIELDS)
    assert tower.encoder.norm == ('frozen' if norm else None)
    assert tower.report.unused == ('classifier.0.bias', 'classifier.0.weight')
    features = quick.jit(lambda images: tower.encoder.apply(tower.variables, images, train=False))(IMAGES)
    for got, expected in zip(features.maps, plain_vgg(weights, IMAGES, norm), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    tower.export(tmp_path / 'out.safetensors')
    exported = pretrained.read_weights(tmp_path / 'out.safetensors')
    assert set(exported) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)


def test_the_published_size():
    encoder = encoders.VGG16(width=None)
    images = jnp.zeros((1, 64, 64, 3))
    features, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), images, train=False))
    assert [level.shape[1:] for level in features.maps] == [
        (32, 32, 64),
        (16, 16, 128),
        (8, 8, 256),
        (4, 4, 512),
        (2, 2, 512),
    ]
    # torchvision's vgg16.features.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 14_714_688


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'stage_widths': (4,)}, 'VGG16: 1 stage_widths for 5 stage_sizes; give one width per stage'),
        ({}, r'VGG16: images must be 32 pixels high and wide at least, got \(2, 9, 7, 3\)'),
    ],
)
def test_what_the_encoder_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: encoders.VGG16(width=4, **fields).init(jax.random.key(0), IMAGES, train=False))


def test_other_weights_are_no_vgg(tmp_path):
    pretrained.write_weights(tmp_path / 'in.safetensors', {'features.0.weight': np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r'holds no VGG16: there is no 3x3 kernel features\.0\.weight in it'):
        pretrained.vgg16(tmp_path / 'in.safetensors')
    pretrained.write_weights(tmp_path / 'in.safetensors', draw_weights(False))
    with pytest.raises(ValueError, match=r'does not fit VGG16: .* missing'):
        pretrained.vgg16(tmp_path / 'in.safetensors')
