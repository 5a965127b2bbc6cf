"""The towers that come out of a published CLIP compute what plain numpy computes from its weights."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.core.types import Ragged
from tests import quick
from tests.pretrained import tiny_clip
from tests.pretrained.tiny_clip import CONFIG, IDS, MASK

TEXT = Ragged(jnp.asarray(IDS), jnp.asarray(MASK))
IMAGES = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
CONVERTERS = {'image': pretrained.clip_image, 'text': pretrained.clip_text}


@pytest.fixture(scope='module')
def arrays():
    return tiny_clip.weights()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, arrays):
    return tiny_clip.write_folder(tmp_path_factory.mktemp('clip'), arrays)


def run(tower, inputs):
    return quick.jit(lambda inputs: tower.encoder.apply(tower.variables, inputs, train=False))(inputs)


def assert_near(ours, theirs):
    # float32 against float64: some 1e-7 for each of the dozens of sums on the way.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_logits_of_images_and_texts(folder, arrays):
    image, text = (pretrained.load(name, folder) for name in ('CLIPImage', 'CLIPText'))
    encoder = image.encoder
    pixels = (IMAGES - np.float32(encoder.mean)) / np.float32(encoder.deviation)
    expected = [tiny_clip.image_embeddings(arrays, pixels), tiny_clip.text_embeddings(arrays)]
    ours = [np.asarray(run(tower, inputs).tokens)[:, 0] for tower, inputs in ((image, IMAGES), (text, TEXT))]
    for got, wanted in zip(ours, expected, strict=True):
        assert_near(got, wanted)
    ours, expected = (
        [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in pair] for pair in (ours, expected)
    )
    scale = np.exp(np.float64(arrays['logit_scale']))
    assert pretrained.clip_logit_scale(image) == pretrained.clip_logit_scale(text) == pytest.approx(scale)
    assert_near(pretrained.clip_logit_scale(image) * ours[0] @ ours[1].T, scale * expected[0] @ expected[1].T)


def test_the_highest_id_ends_a_text_where_the_configuration_is_wrong(tmp_path, arrays):
    config = copy.deepcopy(CONFIG)
    config['text_config']['eos_token_id'] = 2
    tower = pretrained.clip_text(tiny_clip.write_folder(tmp_path, arrays, config))
    assert tower.encoder.end_id is None
    assert_near(run(tower, TEXT).tokens[:, 0], tiny_clip.text_embeddings(arrays, 2))


def test_a_text_without_an_end_token_is_its_last_id(folder, arrays):
    tower = pretrained.clip_text(folder)
    cut = Ragged(jnp.asarray(IDS[2:, :3]), jnp.asarray(MASK[2:, :3]))
    whole = pretrained.clip_text(folder, pooling='none')
    np.testing.assert_allclose(run(tower, cut).tokens[0, 0], run(whole, cut).tokens[0, 2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', CONVERTERS)
def test_round_trip_of_the_whole_file_to_the_bit(tmp_path, folder, arrays, name):
    tower = CONVERTERS[name](folder)
    other = {'image': 'text', 'text': 'vi'}[name]
    assert {key for key in arrays if key.startswith(other)} | {'logit_scale'} == set(tower.unused)
    tower.export(tmp_path / 'out')
    exported = pretrained.read_weights(tmp_path / 'out')
    assert set(exported) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(exported[key].view(np.int32), array.view(np.int32), err_msg=key)


def test_one_tower_alone_with_and_without_its_projection(tmp_path, folder, arrays):
    whole = pretrained.clip_text(folder)
    names = [name for name in arrays if name.startswith('text')]
    config = {'model_type': 'clip_text_model', **CONFIG['text_config']}
    alone = {name: arrays[name] for name in names}
    tower = pretrained.clip_text(tiny_clip.write_folder(tmp_path / 'a', alone, config))
    jax.tree.map(np.testing.assert_array_equal, tower.params, whole.params)
    with pytest.raises(ValueError, match='holds no logit_scale, so it is one tower of a CLIP; give the file of both'):
        pretrained.clip_logit_scale(tower)
    del alone['text_projection.weight']
    alone = {name.removeprefix('text_model.'): array for name, array in alone.items()}
    bare = pretrained.clip_text(tiny_clip.write_folder(tmp_path / 'b', alone, config))
    assert bare.encoder.shared_width is None
    without = pretrained.clip_text(folder, shared_width=None)
    assert 'text_projection.weight' in without.unused
    jax.tree.map(np.testing.assert_array_equal, bare.params, without.params)


@pytest.mark.parametrize('name', CONVERTERS)
def test_a_width_adds_a_projection(folder, name):
    tower, plain = CONVERTERS[name](folder, width=5), CONVERTERS[name](folder)
    assert set(tower.params) - set(plain.params) == {'projection', 'projection_norm'}
    assert tower.params['projection']['kernel'].shape == (7, 5)


@pytest.mark.parametrize(
    ('name', 'change', 'what'),
    [
        ('text', {'model_type': 'siglip'}, "type 'siglip'; pretrained.clip_text reads clip and clip_text_model"),
        ('image', {'model_type': 'vit'}, "type 'vit'; pretrained.clip_image reads clip and clip_vision_model"),
        ('image', {'projection_dim': 8}, r'visual_projection.weight: \(7, 16\), expected \(8, 16\)'),
        ('image', {'vision_config': {'patch_size': [8, 4]}}, r'with patch=\[8, 4\]; encoders.CLIPImage has squares'),
        ('image', {'vision_config': {'image_size': 24}}, r'position_embedding.weight: \(5, 16\), expected \(10, 16\)'),
        ('text', {'text_config': {'num_hidden_layers': 1}}, '16 unexpected'),
        ('text', {'text_config': {'hidden_act': 'silu'}}, "activation must be one of .*quick_gelu.* got 'silu'"),
    ],
)
def test_another_architecture_is_told(tmp_path, arrays, name, change, what):
    config = copy.deepcopy(CONFIG)
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=what):
        CONVERTERS[name](tiny_clip.write_folder(tmp_path, arrays, config))


def test_weights_of_the_other_tower_are_no_tower(tmp_path, arrays):
    texts = {name: array for name, array in arrays.items() if name.startswith('text')}
    with pytest.raises(ValueError, match='holds no vision tower of a CLIP: there is no embeddings'):
        pretrained.clip_image(tiny_clip.write_folder(tmp_path, texts))


def test_texts_that_do_not_fit_are_told(folder):
    tower = pretrained.clip_text(folder)
    long = Ragged(jnp.ones((1, 10), jnp.int32), jnp.ones((1, 10), bool))
    with pytest.raises(ValueError, match='text of 10 ids is longer than the 9 positions of this CLIPText'):
        tower.encoder.apply(tower.variables, long, train=False)
    with pytest.raises(ValueError, match=r"CLIPText: pooling must be one of \('end', 'none'\), got 'mean'"):
        pretrained.clip_text(folder, pooling='mean')
