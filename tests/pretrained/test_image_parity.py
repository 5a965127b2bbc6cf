"""Image towers against the original libraries: random weights in, the same maps, tokens, logits and gradients out.

Needs torch and `transformers`, torchvision or `efficientnet_lite_pytorch`; each test skips without its own.
"""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from tests import quick

# Both sides add up to a thousand float32 products in an order of their own.
TOLERANCE = 1e-5


def original(name):
    """Returns a module of an original library; the test skips without it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return importlib.import_module(name)
    # A torchvision of another build than torch fails with a RuntimeError.
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'needs {name.split(".")[0]} beside torch, of the extra `parity`: {error}')


@pytest.fixture(autouse=True)
def same_weights_each_time():
    """Kernels are drawn by the original libraries, and one drawing in many puts a ReLU between two roundings."""
    original('torch').manual_seed(0)


def disturb(model, seed=0):
    """Gives a model random parameters and running statistics, and turns it to evaluation."""
    torch = original('torch')
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
            if value.ndim == 1 and value.is_floating_point():
                low, high = (-0.3, 0.3) if name.endswith(('bias', 'running_mean')) else (0.5, 1.5)
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return model.eval()


def assert_close(got, expected, what):
    expected = expected.detach().numpy() if hasattr(expected, 'detach') else expected
    np.testing.assert_allclose(
        got, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max(), err_msg=what, strict=True
    )


def compare(tower, forward, shape):
    """Compares maps, tokens and logits, and the gradient of the image, with those of the original; returns the images.

    Args:
      tower: the converted one.
      forward: images `[B, 3, H, W]`, a leaf -> (maps, pooled vectors, logits or None), channels first.
      shape: of the images `[B, H, W, 3]`.
    """
    torch = original('torch')
    random = np.random.default_rng(0)
    images = random.uniform(size=shape).astype(np.float32)
    leaf = torch.tensor(images.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    values = tower.encoder.mean, tower.encoder.deviation
    mean, deviation = (torch.tensor(value).reshape(1, -1, 1, 1) for value in values)
    maps, vectors, logits = forward((leaf - mean) / deviation)
    head = pretrained.image_classifier(tower) if logits is not None else None
    weights = random.normal(size=tuple(vectors.shape)).astype(np.float32)
    (vectors * torch.tensor(weights)).sum().backward()

    def objective(images):
        features = tower.encoder.apply(tower.variables, images, train=False)
        return jnp.sum(features.tokens[:, 0] * weights), features

    gradient, features = quick.jit(jax.grad(objective, has_aux=True))(jnp.asarray(images))
    assert len(features.maps) == len(maps)
    for index, (got, expected) in enumerate(zip(features.maps, maps, strict=True)):
        assert_close(got.transpose(0, 3, 1, 2), expected, f'map {index}')
    assert_close(features.tokens[:, 0], vectors, 'tokens')
    assert_close(gradient.transpose(0, 3, 1, 2), leaf.grad, 'gradient')
    if head is not None:
        assert_close(head[0].apply({'params': head[1]}, features, train=False), logits, 'logits')
    return images


def write_weights(path, model):
    pretrained.write_weights(path, {name: value.numpy() for name, value in model.state_dict().items()})
    return path


@pytest.mark.parametrize('shape', [(2, 65, 47, 3), (1, 64, 32, 3)])
@pytest.mark.parametrize(
    'sizes',
    [
        {'layer_type': 'basic', 'embedding_size': 8, 'hidden_sizes': [8, 16, 32, 64], 'depths': [1, 2, 1, 1]},
        {'layer_type': 'bottleneck', 'embedding_size': 8, 'hidden_sizes': [32, 64, 128, 256], 'depths': [1, 2, 1, 1]},
    ],
    ids=['basic', 'bottleneck'],
)
def test_resnets_of_transformers(tmp_path, sizes, shape):
    transformers = original('transformers')
    model = disturb(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=7, **sizes)))
    model.save_pretrained(tmp_path)
    tower = pretrained.resnet(tmp_path)
    assert not tower.report.problems()

    def forward(images):
        output = model.resnet(images, output_hidden_states=True)
        vectors = output.pooler_output[:, :, 0, 0]
        # The first hidden state is the stem's.
        return output.hidden_states[1:], vectors, model.classifier(output.pooler_output)

    compare(tower, forward, shape)
    # And back into the original.
    tower.export(tmp_path / 'back')
    back = transformers.ResNetForImageClassification.from_pretrained(tmp_path / 'back').state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_resnets_of_torchvision(tmp_path, name):
    model = disturb(getattr(original('torchvision.models'), name)(num_classes=7))
    tower = pretrained.resnet(write_weights(tmp_path / 'weights.safetensors', model))
    assert tower.encoder.depth == int(name.removeprefix('resnet'))

    def forward(images):
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        maps = []
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            maps.append(x)
        vectors = x.mean((2, 3))
        return maps, vectors, model.fc(vectors)

    compare(tower, forward, (1, 65, 47, 3))
    tower.export(tmp_path / 'back.safetensors')
    back = pretrained.read_weights(tmp_path / 'back.safetensors')
    model.load_state_dict({name: original('torch').tensor(array) for name, array in back.items()})


@pytest.mark.parametrize('side', [(65, 47), pytest.param((64, 96), marks=pytest.mark.slow)])
def test_efficientnet_lite0(tmp_path, side):
    library = original('efficientnet_lite_pytorch')
    model = disturb(library.EfficientNet.from_name('efficientnet-lite0', image_size=side))
    tower = pretrained.efficientnet_lite0(write_weights(tmp_path / 'weights.safetensors', model))
    assert not tower.report.problems()

    def forward(images):
        x = model._swish(model._bn0(model._conv_stem(images)))
        maps = []
        for block in model._blocks:
            if max(block._depthwise_conv.stride) > 1:
                maps.append(x)
            x = block(x)
        x = model._swish(model._bn1(model._conv_head(x)))
        vectors = x.mean((2, 3))
        return [*maps, x], vectors, model._fc(vectors)

    compare(tower, forward, (1, *side, 3))


@pytest.mark.parametrize('side', [(32, 32), (65, 47)])
def test_vision_transformers_of_transformers(tmp_path, side):
    transformers = original('transformers')
    sizes = {'hidden_size': 48, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 80}
    config = transformers.ViTConfig(num_labels=7, image_size=32, patch_size=8, **sizes)
    model = disturb(transformers.ViTForImageClassification(config))
    model.save_pretrained(tmp_path)
    tower = pretrained.vit(tmp_path)
    assert not tower.report.problems()
    states = []

    def forward(images):
        output = model.vit(images, output_hidden_states=True, interpolate_pos_encoding=True)
        states.extend(state.detach().numpy() for state in output.hidden_states)
        last = output.last_hidden_state
        rows, columns = (length // 8 for length in side)
        patches = last[:, 1:].reshape(len(last), rows, columns, -1).permute(0, 3, 1, 2)
        return [patches], last[:, 0], model.classifier(last[:, 0])

    images = compare(tower, forward, (2, *side, 3))
    _, sown = tower.encoder.apply(tower.variables, images, train=False, mutable='intermediates')
    hidden = sown['intermediates']['hidden_states']
    assert len(hidden) == 4
    # The original hands out the last one normalised.
    for index, (got, expected) in enumerate(zip(hidden[:3], states[:3], strict=True)):
        assert_close(np.asarray(got), expected, f'hidden state {index}')
    tower.export(tmp_path / 'back')
    back = transformers.ViTForImageClassification.from_pretrained(tmp_path / 'back').state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(back[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vgg16', 'vgg16_bn'])
def test_vggs_of_torchvision(tmp_path, name):
    torch = original('torch')
    model = disturb(getattr(original('torchvision.models'), name)())
    # The dense layers are 120 million numbers that nothing here reads.
    model.classifier = torch.nn.Identity()
    tower = pretrained.vgg16(write_weights(tmp_path / 'weights.safetensors', model))

    def forward(images):
        maps, x = [], images
        for layer in model.features:
            x = layer(x)
            if isinstance(layer, torch.nn.MaxPool2d):
                maps.append(x)
        return maps, x.mean((2, 3)), None

    compare(tower, forward, (1, 65, 47, 3))
