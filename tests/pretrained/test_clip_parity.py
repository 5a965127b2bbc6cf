"""Parity of CLIP's towers with `transformers`: random weights of the original library.

`pip install mmtl_jax[parity]`; without it the tests skip, and those of test_clip.py compare with plain numpy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.core.types import Ragged
from tests import quick
from tests.pretrained.tiny_clip import CONFIG, IDS, MASK

torch = pytest.importorskip('torch', reason='pip install mmtl_jax[parity]')
transformers = pytest.importorskip('transformers', reason='pip install mmtl_jax[parity]')

TEXT = Ragged(jnp.asarray(IDS), jnp.asarray(MASK))
ORIGINAL_TEXT = {'input_ids': torch.tensor(IDS).long(), 'attention_mask': torch.tensor(MASK).long()}
IMAGES = {'as the positions, gelu': ((16, 16), 'gelu'), 'interpolated, odd': ((25, 18), 'quick_gelu')}


def original(kind='', **options):
    """Returns a model with random weights in evaluation: a whole CLIP, or one of its parts."""
    torch.manual_seed(0)
    parts = {part: {**values, **options} for part, values in CONFIG.items() if isinstance(values, dict)}
    config = {
        '': lambda: transformers.CLIPConfig(projection_dim=CONFIG['projection_dim'], **parts),
        'Vision': lambda: transformers.CLIPVisionConfig(**parts['vision_config']),
        'Text': lambda: transformers.CLIPTextConfig(**parts['text_config']),
    }[kind.removesuffix('WithProjection').removesuffix('Model')]()
    model = getattr(transformers, f'CLIP{kind or "Model"}')(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim:
                centre = 1 if 'norm' in name and name.endswith('weight') else 0
                parameter.normal_(centre, 0.3)
    return model


def assert_near(ours, theirs, what=''):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    # Relative to the largest value: a sum of some hundred products cannot keep the digits of one that happens to be 0.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max(), err_msg=what)


def assert_same_states(sown, expected, real=...):
    states = sown['intermediates']['hidden_states']
    assert len(states) == len(expected) == 3
    for index, (ours, theirs) in enumerate(zip(states, expected, strict=True)):
        assert_near(np.asarray(ours)[real], theirs.detach().numpy()[real], f'hidden state {index}')


@pytest.mark.parametrize(('side', 'activation'), IMAGES.values(), ids=IMAGES)
def test_images(tmp_path, side, activation):
    model = original(hidden_act=activation)
    model.save_pretrained(tmp_path)
    tower = pretrained.clip_image(tmp_path)
    images = np.random.default_rng(0).uniform(size=(2, *side, 3)).astype(np.float32)
    leaf = torch.tensor(images.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    mean, deviation = (
        torch.tensor(values).reshape(1, 3, 1, 1) for values in (tower.encoder.mean, tower.encoder.deviation)
    )
    pixels = (leaf - mean) / deviation
    expected = model.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
    embeddings = model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    torch.sum(torch.sin(embeddings)).backward()

    def objective(images):
        features, sown = tower.encoder.apply(tower.variables, images, train=False, mutable='intermediates')
        return jnp.sum(jnp.sin(features.tokens)), (features, sown)

    gradient, (features, sown) = quick.jit(jax.grad(objective, has_aux=True))(jnp.asarray(images))
    assert_same_states(sown, expected.hidden_states)
    assert_near(features.tokens[:, 0], embeddings, 'embeddings')
    assert_near(gradient.transpose(0, 3, 1, 2), leaf.grad, 'gradient')
    # The original normalises the class token alone; here the patches are, too.
    patches = model.vision_model.post_layernorm(expected.last_hidden_state[:, 1:])
    assert_near(features.maps[0].reshape(2, -1, patches.shape[-1]), patches, 'map')


@pytest.mark.parametrize('end_id', [CONFIG['text_config']['eos_token_id'], 2], ids=['end token', 'highest id'])
def test_texts(tmp_path, end_id):
    config = {**CONFIG['text_config'], 'eos_token_id': end_id}
    model = original('TextModelWithProjection', eos_token_id=end_id)
    model.save_pretrained(tmp_path)
    assert model.config.eos_token_id == config['eos_token_id']
    tower = pretrained.clip_text(tmp_path)
    assert tower.encoder.end_id == (None if end_id == 2 else end_id)

    def objective(params, text):
        features, sown = tower.encoder.apply({'params': params}, text, train=False, mutable='intermediates')
        return jnp.sum(jnp.sin(features.tokens)), (features, sown)

    gradient, (features, sown) = quick.jit(jax.grad(objective, has_aux=True))(tower.params, TEXT)
    expected = model(**ORIGINAL_TEXT, output_hidden_states=True)
    torch.sum(torch.sin(expected.text_embeds)).backward()
    assert_same_states(sown, expected.hidden_states, MASK)
    assert_near(features.tokens[:, 0], expected.text_embeds, 'embeddings')
    words = model.get_input_embeddings().weight.grad.numpy()
    assert np.abs(words[IDS[MASK]]).max() > 0.01
    assert_near(gradient['word_embedding']['embedding'], words, 'gradient')
    tokens = pretrained.clip_text(tmp_path, shared_width=None, pooling='none')
    states = quick.jit(lambda text: tokens.encoder.apply(tokens.variables, text, train=False).tokens)(TEXT)
    assert_near(states[MASK], expected.last_hidden_state.detach().numpy()[MASK], 'last hidden states')


def test_logits_of_images_and_texts(tmp_path):
    model = original()
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    towers = {'image': pretrained.clip_image(tmp_path), 'text': pretrained.clip_text(tmp_path)}
    embeddings = {
        name: quick.jit(lambda inputs, tower=tower: tower.encoder.apply(tower.variables, inputs, train=False).tokens)(
            images if name == 'image' else TEXT
        )[:, 0]
        for name, tower in towers.items()
    }
    unit = {name: value / jnp.linalg.norm(value, axis=-1, keepdims=True) for name, value in embeddings.items()}
    encoder = towers['image'].encoder
    pixels = ((images - np.float32(encoder.mean)) / np.float32(encoder.deviation)).transpose(0, 3, 1, 2)
    expected = model(pixel_values=torch.tensor(pixels), **ORIGINAL_TEXT).logits_per_image
    for tower in towers.values():
        assert_near(pretrained.clip_logit_scale(tower) * unit['image'] @ unit['text'].T, expected, 'logits')


@pytest.mark.parametrize(
    'kind', ['', 'VisionModel', 'VisionModelWithProjection', 'TextModel', 'TextModelWithProjection']
)
def test_an_exported_tower_is_loaded_by_the_original_library(tmp_path, kind):
    model = original(kind)
    model.save_pretrained(tmp_path / 'in')
    converters = [pretrained.clip_image] if 'Vision' in kind else [pretrained.clip_text] if kind else []
    for converter in converters or (pretrained.clip_image, pretrained.clip_text):
        tower = converter(tmp_path / 'in')
        assert not tower.report.problems()
        tower.export(tmp_path / 'out')
        again, report = type(model).from_pretrained(tmp_path / 'out', output_loading_info=True)
        assert not any(report.values()), report
        for key, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key
