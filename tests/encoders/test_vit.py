"""The vision transformer: positions for other sizes of images, its published sizes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.encoders.vit import resize_matrix


def test_positions_are_interpolated_as_pytorch_does():
    np.testing.assert_array_equal(resize_matrix(5, 5), np.eye(5))
    # torch.nn.functional.interpolate(torch.eye(3)[None, :, None], (1, 5), mode='bicubic')[0, :, 0].T
    expected = [
        [1.096, -0.096, 0.0],
        [0.612, 0.46, -0.072],
        [0.0, 1.0, 0.0],
        [-0.072, 0.46, 0.612],
        [0.0, -0.096, 1.096],
    ]
    np.testing.assert_allclose(resize_matrix(3, 5), expected, atol=1e-6)
    np.testing.assert_allclose(resize_matrix(7, 3).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ('fields', 'millions'),
    [({}, 21.67), ({'hidden_width': 768, 'num_heads': 12}, 85.80)],
)
def test_the_published_sizes(fields, millions):
    encoder = encoders.ViT(width=None, **fields)
    images = jnp.zeros((1, 224, 224, 3))
    features, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), images, train=False))
    width = encoder.hidden_width
    assert features.tokens.shape == (1, 1, width)
    assert [level.shape for level in features.maps] == [(1, 14, 14, width)]
    # Those of timm without the classifier.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({}, 'ViT: images of 9 x 33 pixels hold no patch of 16; enlarge them'),
        ({'pooling': 'cls'}, r"ViT: pooling must be one of .*'class'.* got 'cls'"),
    ],
)
def test_what_it_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: encoders.ViT(width=4, **fields).init(jax.random.key(0), jnp.zeros((1, 9, 33, 3)), train=False)
        )
