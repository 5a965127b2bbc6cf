"""EfficientNet-lite0: its depthwise convolution is linen's, and its size the published one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.encoders.efficientnet import Depthwise


@pytest.mark.parametrize(('size', 'stride'), [(3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize(('height', 'width'), [(8, 6), (7, 1)])
def test_depthwise_convolution_is_that_of_linen(size, stride, height, width):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, height, width, 4)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(size, size, 1, 4)), jnp.float32)
    conv = nn.Conv(4, (size, size), (stride, stride), feature_group_count=4, use_bias=False)
    expected = conv.apply({'params': {'kernel': kernel}}, x)
    got = Depthwise(size, stride).apply({'params': {'kernel': kernel}}, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_the_published_size():
    encoder = encoders.EfficientNetLite0(width=None)
    images = jnp.zeros((1, 224, 224, 3))
    features, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), images, train=False))
    assert [level.shape[1:] for level in features.maps] == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 112),
        (7, 7, 1280),
    ]
    # 4,652,008 trainable numbers as published, less those of the classifier of 1000 classes.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 4_652_008 - 1281 * 1000
    assert sum('block' in name for name in variables['params']) == 16
