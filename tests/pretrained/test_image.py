"""Image towers out of files: every name has its place, and what comes out computes what plain numpy computes."""

import jax
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.encoders.resnet import IMAGENET_DEVIATION, IMAGENET_MEAN
from mmtl_jax.pretrained.efficientnet import efficientnet_names
from mmtl_jax.pretrained.resnet import resnet_names
from tests import quick

IMAGES = np.random.default_rng(0).uniform(size=(2, 17, 11, 3)).astype(np.float32)
RESNET = {'depth': 18, 'stage_sizes': (1, 1), 'base_width': 4}
BOTTLENECK = {'depth': 50, 'stage_sizes': (1, 2), 'base_width': 4}
LITE = {'stages': ((1, 3, 1, 1, 4), (2, 5, 2, 2, 6)), 'stem_width': 4, 'head_width': 8}
CASES = {
    'torchvision': (pretrained.resnet, encoders.ResNet, resnet_names, RESNET, 'fc'),
    'torchvision, bottlenecks': (pretrained.resnet, encoders.ResNet, resnet_names, BOTTLENECK, 'fc'),
    'efficientnet': (pretrained.efficientnet_lite0, encoders.EfficientNetLite0, efficientnet_names, LITE, '_fc'),
}


def transformers_names(encoder):
    return resnet_names(encoder, 'transformers', prefix='resnet.')


CASES['transformers'] = (pretrained.resnet, encoders.ResNet, transformers_names, RESNET, 'classifier.1')


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def original_weights(names, seed=1, classes=5):
    """Returns random arrays under all names of a table, running variances above zero."""
    random = np.random.default_rng(seed)
    encoder, table, classifier = names
    variables = quick.parameters(encoder, IMAGES, train=False)
    arrays = table.to_original({**variables['params'], 'batch_stats': variables['batch_stats']})
    arrays = {
        name: (array + random.uniform(0.1, 0.5, array.shape)).astype(np.float32) for name, array in arrays.items()
    }
    features = jax.eval_shape(lambda: encoder.apply(variables, IMAGES, train=False))
    channels = features.tokens.shape[-1]
    arrays[f'{classifier}.weight'] = random.normal(size=(classes, channels)).astype(np.float32)
    arrays[f'{classifier}.bias'] = random.normal(size=classes).astype(np.float32)
    norms = [name.removesuffix('running_mean') for name in arrays if name.endswith('running_mean')]
    return arrays | {f'{norm}num_batches_tracked': np.int64(7) for norm in norms}


def write(path, case):
    _, module, names, fields, classifier = case
    encoder = module(width=None, **fields)
    weights = original_weights((encoder, names(encoder), classifier))
    file = path / 'model.safetensors'
    pretrained.write_weights(file, weights)
    return file, weights


def test_round_trip_to_the_bit_with_every_name_accounted_for(tmp_path, case):
    file, weights = write(tmp_path, case)
    tower = case[0](file, **case[3])
    assert {*tower.report.loaded, *tower.report.unused} == set(weights)
    assert not tower.report.problems()
    assert len(tower.report.loaded) == len(jax.tree.leaves(tower.variables))
    tower.export(tmp_path / 'again.safetensors')
    again = pretrained.read_weights(tmp_path / 'again.safetensors')
    assert set(again) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
        assert again[name].dtype == array.dtype


def test_a_projection_is_drawn_and_the_tower_stays(tmp_path, case):
    file, _ = write(tmp_path, case)
    bare, projected = case[0](file, **case[3]), case[0](file, width=3, key=jax.random.key(2), **case[3])
    assert set(projected.params) - set(bare.params) == {'projection', 'projection_norm'}
    jax.tree.map(np.testing.assert_array_equal, {name: projected.params[name] for name in bare.params}, bare.params)
    features = jax.eval_shape(lambda: projected.encoder.apply(projected.variables, IMAGES, train=True))
    assert features.tokens.shape == (2, 1, 3)
    projected.export(tmp_path / 'out.safetensors')
    assert 'projection' not in str(set(pretrained.read_weights(tmp_path / 'out.safetensors')))


def test_the_classifier_reads_the_towers_features(tmp_path, case):
    file, weights = write(tmp_path, case)
    tower = case[0](file, **case[3])
    head, params = pretrained.image_classifier(tower)
    features = tower.encoder.apply(tower.variables, IMAGES, train=False)
    logits = head.apply({'params': params}, features, train=False)
    vectors = np.asarray(features.maps[-1]).mean((1, 2))
    expected = vectors @ weights[f'{case[4]}.weight'].T + weights[f'{case[4]}.bias']
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def windows(x, size, stride, padding, fill=0.0):
    """Returns `[B, C, h, w, size, size]`: what each output of a convolution or a pooling sees."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def layer(x, weights, conv, norm, stride=1):
    """Returns convolution and normalisation of channels first, by torchvision's names."""
    kernel = weights[f'{conv}.weight'].astype(np.float64)
    x = np.einsum('bchwij,ocij->bohw', windows(x, kernel.shape[-1], stride, kernel.shape[-1] // 2), kernel)
    scale, bias, mean, variance = (
        weights[f'{norm}.{name}'][None, :, None, None] for name in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias


def plain_resnet(weights, images, stage_sizes, convolutions):
    """Returns the maps, channels last, that torchvision's names stand for."""
    x = (images.astype(np.float64) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION)
    x = np.maximum(layer(x.transpose(0, 3, 1, 2), weights, 'conv1', 'bn1', 2), 0)
    x = windows(x, 3, 2, 1, -np.inf).max((4, 5))
    maps = []
    for stage, blocks in enumerate(stage_sizes, start=1):
        for block in range(blocks):
            name, stride, branch = f'layer{stage}.{block}', 2 if stage > 1 and block == 0 else 1, x
            for i in range(1, convolutions + 1):
                # v1.5: it is the first 3x3 convolution that strides.
                strides = stride if i == convolutions - 1 else 1
                branch = layer(branch, weights, f'{name}.conv{i}', f'{name}.bn{i}', strides)
                branch = np.maximum(branch, 0) if i < convolutions else branch
            if f'{name}.downsample.0.weight' in weights:
                x = layer(x, weights, f'{name}.downsample.0', f'{name}.downsample.1', stride)
            x = np.maximum(x + branch, 0)
        maps.append(x.transpose(0, 2, 3, 1))
    return maps


@pytest.mark.parametrize(('case', 'convolutions'), [('torchvision', 2), ('torchvision, bottlenecks', 3)])
def test_a_resnet_computes_what_its_names_stand_for(tmp_path, case, convolutions):
    file, weights = write(tmp_path, CASES[case])
    fields = CASES[case][3]
    tower = pretrained.resnet(file, **fields)
    features = quick.jit(lambda images: tower.encoder.apply(tower.variables, images, train=False))(IMAGES)
    for got, expected in zip(
        features.maps, plain_resnet(weights, IMAGES, fields['stage_sizes'], convolutions), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_configuration_and_the_pixels_beside_the_weights_are_taken(tmp_path):
    write(tmp_path, CASES['transformers'])
    (tmp_path / 'config.json').write_text('{"depths": [1, 1], "layer_type": "basic"}')
    (tmp_path / 'preprocessor_config.json').write_text('{"image_mean": [0, 0, 0.5], "image_std": [1, 1, 0.5]}')
    encoder = pretrained.resnet(tmp_path).encoder
    assert (encoder.depth, encoder.stage_sizes, encoder.base_width, encoder.norm) == (18, (1, 1), 4, 'frozen')
    assert (encoder.mean, encoder.deviation) == ((0, 0, 0.5), (1, 1, 0.5))


def test_what_stands_before_every_name_is_found(tmp_path):
    file, weights = write(tmp_path, CASES['torchvision'])
    wrapped = {f'module.{name}': array for name, array in weights.items()}
    # In the order in which nothing helps to tell the stem from the blocks.
    pretrained.write_weights(tmp_path / 'w.safetensors', dict(reversed(wrapped.items())))
    tower, expected = pretrained.resnet(tmp_path / 'w.safetensors', **RESNET), pretrained.resnet(file, **RESNET)
    jax.tree.map(np.testing.assert_array_equal, tower.variables, expected.variables)
    del wrapped['module.conv1.weight']
    pretrained.write_weights(tmp_path / 'w.safetensors', wrapped)
    with pytest.raises(ValueError, match='holds no ResNet'):
        pretrained.resnet(tmp_path / 'w.safetensors', **RESNET)


def test_a_published_size_is_recognised_by_its_names(tmp_path):
    encoder = encoders.ResNet(width=None, depth=34, base_width=2)
    weights = original_weights((encoder.clone(stage_sizes=(3, 4, 6, 3)), resnet_names(encoder), 'fc'))
    pretrained.write_weights(tmp_path / 'r.safetensors', weights)
    assert pretrained.resnet(tmp_path / 'r.safetensors').encoder == encoder.clone(norm='frozen')
    cut = {name: array for name, array in weights.items() if not name.startswith('layer4.2')}
    pretrained.write_weights(tmp_path / 'cut.safetensors', cut)
    with pytest.raises(ValueError, match=r'stages of \(3, 4, 6, 2\) blocks, which is no published ResNet'):
        pretrained.resnet(tmp_path / 'cut.safetensors')
    with pytest.raises(ValueError, match=r'does not fit ResNet: 10 missing \(layer4.2.bn1.bias'):
        pretrained.resnet(tmp_path / 'cut.safetensors', depth=34, base_width=2)


@pytest.mark.parametrize(
    ('read', 'weights', 'fields', 'message'),
    [
        (
            pretrained.resnet,
            CASES['efficientnet'],
            {},
            r'no ResNet: there is no 7x7 kernel conv1.weight or embedder',
        ),
        (pretrained.efficientnet_lite0, CASES['torchvision'], {}, 'holds no EfficientNet-lite: there is no _conv_stem'),
        (pretrained.efficientnet_lite0, CASES['efficientnet'], {}, 'does not fit EfficientNetLite0: .* missing'),
        (pretrained.resnet, CASES['torchvision'], {**RESNET, 'norm': 'group'}, 'no place for the running statistics'),
        (pretrained.resnet, CASES['torchvision'], {**RESNET, 'widht': 3}, "no argument 'widht'; did you mean 'width'"),
        (
            pretrained.resnet,
            CASES['torchvision'],
            {'config': {'downsample_in_bottleneck': True}},
            'is a ResNet with downsample_in_bottleneck=True; encoders.ResNet has False',
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tmp_path, read, weights, fields, message):
    file, _ = write(tmp_path, weights)
    with pytest.raises(ValueError, match=message):
        read(file, **fields)


def test_a_tower_without_a_classifier_says_so(tmp_path):
    file, weights = write(tmp_path, CASES['torchvision'])
    pretrained.write_weights(file, {name: array for name, array in weights.items() if not name.startswith('fc')})
    with pytest.raises(ValueError, match='holds no linear classifier on top of its tower'):
        pretrained.image_classifier(pretrained.resnet(file, **RESNET))
