"""What image encoders do by hand: fold pixels, pool cells, choose channels, refuse bytes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.encoders.image import conv, doubling_widths, fold, max_pool
from tests import quick

IMAGES = jnp.zeros((2, 8, 8, 3))


def test_folding_moves_squares_of_pixels_into_channels():
    images = np.arange(1 * 4 * 6 * 2).reshape(1, 4, 6, 2)
    folded = fold(jnp.asarray(images), 2)
    assert folded.shape == (1, 2, 3, 8)
    np.testing.assert_array_equal(folded[0, 1, 2], images[0, 2:4, 4:6].reshape(-1))


def test_folding_repeats_the_last_row_and_column():
    images = np.arange(1 * 3 * 2 * 1).reshape(1, 3, 2, 1)
    np.testing.assert_array_equal(fold(jnp.asarray(images), 2)[0, 1, 0], [4, 5, 4, 5])


@pytest.mark.parametrize(('height', 'width'), [(4, 6), (5, 3)])
def test_pooling_is_that_of_linen(height, width):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, 3)))
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2), padding='SAME'))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('side', [4, 5])
def test_a_convolution_of_single_pixels_is_that_of_linen(side, stride):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, side, side, 3)), jnp.float32)
    layer, plain = conv(5, 1, stride), nn.Conv(5, (1, 1), (stride, stride), use_bias=False)
    variables = layer.init(jax.random.key(0), x)
    # The same products, summed in another order.
    np.testing.assert_allclose(layer.apply(variables, x), plain.apply(variables, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['ImageCNN', 'ImageResNet'])
def test_gradients_are_finite_where_the_compiler_computes_twice_what_is_pooled(name):
    options = {'stage_sizes': (1, 1)} if name == 'ImageResNet' else {}
    encoder = getattr(encoders, name)(width=8, stage_widths=(8, 8), **options)
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3)).astype(np.float32)
    variables = quick.parameters(encoder, images, train=False, noise=0.1)

    # Unoptimised, XLA computes the maps anew for the gradient of their maximum, and rounds otherwise.
    @quick.jit
    def gradient(variables):
        return jax.grad(lambda variables: jnp.sum(jnp.sin(encoder.apply(variables, images, train=False).tokens)))(
            variables
        )

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(variables)))


def test_channels_double_up_to_the_width():
    assert doubling_widths(128) == (16, 32, 64, 128)
    assert doubling_widths(20) == (8, 8, 10, 20)


@pytest.mark.parametrize('name', ['ImageCNN', 'ImageResNet'])
@pytest.mark.parametrize(
    ('images', 'arguments', 'message'),
    [
        (IMAGES.astype(jnp.uint8), {}, r'images must be floats .* got uint8 \(2, 8, 8, 3\); divide bytes by 255'),
        (IMAGES[0], {}, r'images must be floats \[B, H, W, C\] .* got float32 \(8, 8, 3\)'),
        (IMAGES, {'pooling': 'max'}, r"Image\w+: pooling must be one of .*'mean_max'.* got 'max'"),
    ],
)
def test_bad_input_is_told_in_one_sentence(name, images, arguments, message):
    encoder = getattr(encoders, name)(width=8, **arguments)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, train=False))


def test_a_residual_network_needs_a_width_per_stage():
    encoder = encoders.ImageResNet(width=8, stage_sizes=(1, 1), stage_widths=(8,))
    with pytest.raises(ValueError, match=r'1 stage_widths \(8,\) for 2 stage_sizes \(1, 1\); give one width per stage'):
        encoder.init(jax.random.key(0), IMAGES, train=False)
