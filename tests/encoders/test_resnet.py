"""The residual network's padding against plain numpy, its batch statistics, and how it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, encoders, fusion, sharing, tasks
from mmtl_jax.core.types import Batch
from mmtl_jax.encoders.resnet import IMAGENET_DEVIATION, IMAGENET_MEAN
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import make_gradient
from mmtl_jax.training.state import init_state
from mmtl_jax.training.update import make_update
from tests import quick

ROWS = 4
SMALL = {'depth': 18, 'stage_sizes': (1, 1), 'base_width': 2}


def windows(x, size, stride, padding, fill):
    """Returns `[B, h, w, size, size, C]`: what each output of a convolution or a pooling sees."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return views.transpose(0, 1, 2, 4, 5, 3)


def convolve(x, kernel, stride, padding):
    return np.einsum('bhwijc,ijco->bhwo', windows(x, kernel.shape[0], stride, padding, 0), kernel)


def normalise(x, variables, *path):
    """Returns `x` normalised by the running statistics of the layer at the path."""
    scale, statistics = variables['params'], variables['batch_stats']
    for name in path:
        scale, statistics = scale[name], statistics[name]
    return (x - statistics['mean']) / np.sqrt(statistics['var'] + 1e-5) * scale['scale'] + scale['bias']


def plain_resnet(images, variables):
    """Returns the maps of `SMALL`, computed in float64 without JAX."""
    params = variables['params']
    x = (images - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION)
    x = convolve(x, params['stem_conv']['kernel'], 2, 3)
    x = np.maximum(normalise(x, variables, 'stem_norm'), 0)
    x = windows(x, 3, 2, 1, -np.inf).max((3, 4))
    maps = []
    for name, stride in (('stage1_block1', 1), ('stage2_block1', 2)):
        block = params[name]
        branch = convolve(x, block['conv1']['kernel'], stride, 1)
        branch = np.maximum(normalise(branch, variables, name, 'norm1'), 0)
        branch = normalise(convolve(branch, block['conv2']['kernel'], 1, 1), variables, name, 'norm2')
        if 'shortcut_conv' in block:
            x = normalise(convolve(x, block['shortcut_conv']['kernel'], stride, 0), variables, name, 'shortcut_norm')
        x = np.maximum(x + branch, 0)
        maps.append(x)
    return maps


def disturb(variables, seed=1):
    """Returns the variables with other scales, biases, means and variances than the initial ones."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + random.uniform(0.1, 0.5, leaf.shape).astype(np.float32), variables)


def draw_images(height, width, rows=ROWS, seed=0):
    return np.random.default_rng(seed).uniform(size=(rows, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(('height', 'width'), [(16, 16), (17, 11)])
def test_maps_are_those_of_plain_numpy_for_even_and_odd_sides(height, width):
    encoder, images = encoders.ResNet(width=None, **SMALL), draw_images(height, width)
    variables = disturb(quick.parameters(encoder, images, train=False))
    features = quick.jit(lambda images: encoder.apply(variables, images, train=False))(images)
    for got, expected in zip(features.maps, plain_resnet(images.astype(np.float64), variables), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(features.tokens[:, 0], features.maps[-1].mean((1, 2)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ('depth', 'blocks', 'channels', 'millions'),
    [(18, 8, 512, 11.18), (34, 16, 512, 21.28), (50, 16, 2048, 23.51), (101, 33, 2048, 42.50)],
)
def test_the_published_sizes(depth, blocks, channels, millions):
    encoder = encoders.ResNet(width=None, depth=depth)
    images = jnp.zeros((1, 64, 64, 3))
    features, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), images, train=False))
    assert sum('block' in name for name in variables['params']) == blocks
    assert [level.shape[1] for level in features.maps] == [16, 8, 4, 2]
    assert features.tokens.shape == (1, 1, channels)
    # torchvision's counts, less the classifier's.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) / 1e6 == pytest.approx(millions, abs=0.005)


def test_batch_statistics_are_the_moving_average_of_those_of_the_batch():
    encoder, images = encoders.ResNet(width=None, **SMALL), draw_images(17, 11)
    variables = quick.parameters(encoder, images, train=False)
    _, changed = encoder.apply(variables, images, train=True, mutable=['batch_stats'])
    x = (images - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION)
    stem = convolve(x, variables['params']['stem_conv']['kernel'], 2, 3)
    statistics = changed['batch_stats']['stem_norm']
    np.testing.assert_allclose(statistics['mean'], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics['var'], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-5)


def test_frozen_statistics_stay_and_training_equals_evaluation():
    encoder, images = encoders.ResNet(width=None, norm='frozen', **SMALL), draw_images(17, 11)
    variables = disturb(quick.parameters(encoder, images, train=False))
    trained, changed = encoder.apply(variables, images, train=True, mutable=['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, trained, encoder.apply(variables, images, train=False))
    jax.tree.map(np.testing.assert_array_equal, changed['batch_stats'], variables['batch_stats'])


def make_run(norm):
    """Returns a jitted training step on one batch of images, and the first state."""
    task_list = (tasks.classification('kind', num_classes=2),)
    model = MultiModalMultiTask(
        encoders={'image': encoders.ResNet(width=4, norm=norm, **SMALL)},
        fusion=fusion.Concat(width=4),
        sharing=sharing.Hard(tasks=('kind',), width=4),
        heads={'kind': task_list[0].head},
        reads={'kind': 'fused'},
    )
    batch = Batch(
        inputs={'image': draw_images(17, 11, rows=8)},
        present={'image': np.ones(8, bool)},
        targets={'kind': np.arange(8, dtype=np.int32) % 2},
        labelled={'kind': np.ones(8, bool)},
        real=np.ones(8, bool),
    )
    batch = jax.tree.map(jnp.asarray, batch)
    balancer, optimizer = balancing.equal(), optax.sgd(0.1)
    gradient, update = make_gradient(model, task_list, balancer), make_update(task_list, optimizer)

    def start():
        return init_state(model, optimizer, balancer, batch=batch, num_tasks=1, seed=0, average=False)

    return quick.jit(lambda state: update(state, *gradient(state, batch))[0]), quick.jit(start)()


def test_a_training_step_moves_the_statistics_and_those_of_eight_devices_are_those_of_one():
    step, state = make_run('batch')
    first = step(state)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first.variables, state.variables)
    assert min(jax.tree.leaves(moved)) > 0

    encoder, images = encoders.ResNet(width=4, **SMALL), draw_images(17, 11, rows=8)
    variables = {'params': state.params, **state.variables}
    variables = {collection: tree['encoders']['image'] for collection, tree in variables.items()}
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    apply = quick.jit(lambda images: encoder.apply(variables, images, train=True, mutable=['batch_stats'])[1])
    spread = apply(jax.device_put(images, rows))['batch_stats']
    expected = first.variables['batch_stats']['encoders']['image']
    # Sums in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), spread, expected)


def test_a_training_step_leaves_frozen_statistics():
    step, state = make_run('frozen')
    jax.tree.map(np.testing.assert_array_equal, step(state).variables, state.variables)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'depth': 20}, r'ResNet: depth must be one of \(18, 34, 50, 101\), got 20'),
        ({'norm': 'layer'}, r"norm must be one of \('batch', 'frozen', 'group'\), got 'layer'"),
        ({'pooling': 'max', 'depth': 18}, r"ResNet: pooling must be one of .* got 'max'"),
    ],
)
def test_bad_fields_are_told_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: encoders.ResNet(width=8, **arguments).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        )
