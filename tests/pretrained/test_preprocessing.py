"""Preprocessing that belongs to weights, in this library's terms and as the original library does it."""

import json

import numpy as np
import pytest
from PIL import Image

from mmtl_jax import encoders, pretrained
from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.pretrained.preprocessing import pixel_fields
from tests.pretrained import tiny_clip

MEANS = {'image_mean': [0.5, 0.4, 0.3], 'image_std': [0.2, 0.3, 0.4]}
# As they stand beside published weights, of several ages, for smaller pictures.
FILES = {
    'CLIP, first': {'feature_extractor_type': 'CLIPFeatureExtractor', 'size': 24, 'crop_size': 24, 'resample': 3},
    'CLIP': {
        'image_processor_type': 'CLIPImageProcessor',
        'size': {'shortest_edge': 24},
        'crop_size': {'height': 20, 'width': 20},
        'do_center_crop': True,
        **MEANS,
    },
    'Bit, no crop named': {'image_processor_type': 'BitImageProcessor', 'size': {'shortest_edge': 230}},
    'ViT, a model that names it': {'size': 24, 'resample': 2, **MEANS},
    'ViT': {'image_processor_type': 'ViTImageProcessorFast', 'size': {'height': 24, 'width': 24}, **MEANS},
    'DeiT': {'image_processor_type': 'DeiTImageProcessor', 'size': 26, 'crop_size': 24, 'do_normalize': False},
    'ConvNext': {'feature_extractor_type': 'ConvNextFeatureExtractor', 'size': 24, 'crop_pct': 0.875, **MEANS},
    'ConvNext, large': {
        'image_processor_type': 'ConvNextImageProcessor',
        'size': {'shortest_edge': 384},
        'resample': 2,
    },
}
PICTURES = [
    np.random.default_rng(0).integers(0, 256, size=size, dtype=np.uint8)
    for size in ((40, 61, 3), (61, 40, 3), (33, 33, 3), (11, 17, 3))
]


def write(folder, settings, model='vit'):
    tiny_clip.write_folder(folder, {'a': np.zeros(1, np.float32)}, {'model_type': model})
    (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    return folder


def apply(steps, picture):
    example = {'image': picture}
    for step in steps:
        example = build(step, transforms)(example)
    return example['image']


@pytest.fixture(params=FILES)
def folder(request, tmp_path):
    return write(tmp_path, FILES[request.param])


def test_pictures_and_their_scale_are_those_of_the_original_library(folder):
    transformers = pytest.importorskip('transformers', reason='pip install mmtl_jax[parity]')
    settings = json.loads((folder / 'preprocessor_config.json').read_text())
    named = settings.get('image_processor_type') or settings.get('feature_extractor_type', 'ViT')
    kind = named.split('Image')[0].split('Feature')[0]
    processor = getattr(transformers, f'{kind}ImageProcessorPil').from_pretrained(folder)
    preprocessing = pretrained.read_preprocessing(folder)
    for picture in PICTURES:
        expected = processor(picture, input_data_format='channels_last')['pixel_values'][0]
        ours = apply(preprocessing.steps, picture)
        assert ours.shape == (preprocessing.side, preprocessing.side, 3)
        # Equal bytes: what is left is one rounding of float32, of values below 4.
        ours = (ours / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.deviation)
        np.testing.assert_allclose(ours.transpose(2, 0, 1), expected, rtol=0, atol=1e-6)


def test_steps_are_plain_and_name_the_key(folder):
    preprocessing = pretrained.read_preprocessing(folder, 'photo')
    assert json.loads(json.dumps(preprocessing.steps)) == list(preprocessing.steps)
    assert {step['key'] for step in preprocessing.steps} == {'photo'}
    grey = PICTURES[0][..., :1]
    steps = pretrained.read_preprocessing(folder).steps
    np.testing.assert_array_equal(apply(steps, grey), apply(steps, grey.repeat(3, axis=2)))


def test_the_shorter_side_then_the_centre():
    steps = [
        {'name': 'resize', 'key': 'image', 'size': 20, 'edge': 'shorter', 'resample': 'bicubic'},
        {'name': 'centre_crop', 'key': 'image', 'size': 20},
    ]
    # 20 x 30.5, rounded down.
    whole = np.asarray(Image.fromarray(PICTURES[0]).resize((30, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(apply(steps[:1], PICTURES[0]), whole)
    np.testing.assert_array_equal(apply(steps, PICTURES[0]), whole[:, 5:25])


def test_a_processor_inside_another_file(tmp_path):
    write(tmp_path, FILES['CLIP'])
    expected = pretrained.read_preprocessing(tmp_path)
    (tmp_path / 'preprocessor_config.json').unlink()
    (tmp_path / 'processor_config.json').write_text(json.dumps({'image_processor': FILES['CLIP']}))
    assert pretrained.read_preprocessing(tmp_path) == expected


@pytest.mark.parametrize(
    ('changes', 'size', 'resample', 'left'),
    [
        # 24 / 0.9, and the same times 61 / 40, rounded down.
        ({}, (39, 26), Image.Resampling.BICUBIC, 7),
        ({'crop_mode': 'squash', 'interpolation': 'bilinear'}, (26, 26), Image.Resampling.BILINEAR, 1),
    ],
)
def test_the_configuration_of_timm(tmp_path, changes, size, resample, left):
    settings = {'input_size': [3, 24, 24], 'crop_pct': 0.9, 'mean': [0.5, 0.4, 0.3], 'std': [0.2, 0.3, 0.4], **changes}
    folder = tiny_clip.write_folder(tmp_path, {'a': np.zeros(1, np.float32)}, {'pretrained_cfg': settings})
    preprocessing = pretrained.read_preprocessing(folder)
    assert (preprocessing.side, preprocessing.mean, preprocessing.deviation) == (24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    whole = np.asarray(Image.fromarray(PICTURES[0]).resize(size, resample))
    np.testing.assert_array_equal(apply(preprocessing.steps, PICTURES[0]), whole[1:25, left : left + 24])
    for wrong, what in (
        ({'crop_mode': 'border'}, "has crop_mode='border'; known are center, squash"),
        ({'interpolation': 'random'}, "has interpolation='random'; known are nearest"),
    ):
        tiny_clip.write_folder(tmp_path, {'a': np.zeros(1, np.float32)}, {'pretrained_cfg': {**settings, **wrong}})
        with pytest.raises(ValueError, match=what):
            pretrained.read_preprocessing(folder)
        # Towers can be read all the same.
        assert pixel_fields(folder) == {'mean': (0.5, 0.4, 0.3), 'deviation': (0.2, 0.3, 0.4)}


def test_the_encoder_normalises_by_it(tmp_path):
    folder = tiny_clip.write_folder(tmp_path, tiny_clip.weights())
    settings = {**FILES['CLIP'], 'size': 18, 'crop_size': 16}
    (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    tower = pretrained.clip_image(folder)
    preprocessing = pretrained.read_preprocessing(folder, encoder=tower.encoder)
    assert preprocessing.mean == tower.encoder.mean == (0.5, 0.4, 0.3)
    assert preprocessing.deviation == tower.encoder.deviation == (0.2, 0.3, 0.4)
    plain = {**settings, 'do_normalize': False}
    (folder / 'preprocessor_config.json').write_text(json.dumps(plain))
    assert pretrained.clip_image(folder).encoder.deviation == (1.0,)
    with pytest.raises(ValueError, match=r'has the mean \(0.0,\), but CLIPImage has \(0.5, .*; give mean= when'):
        pretrained.read_preprocessing(folder, encoder=tower.encoder)


@pytest.mark.parametrize(
    ('settings', 'what'),
    [
        (
            {'image_processor_type': 'SamImageProcessor'},
            'is for a SamImageProcessor; the processors that are known are',
        ),
        ({'do_rescale': False}, 'does not divide bytes by 255'),
        ({'rescale_factor': 1 / 127.5}, 'does not divide bytes by 255'),
        ({'do_resize': False}, 'makes pictures of several sizes'),
        ({'size': {'shortest_edge': 24}}, 'makes pictures of several sizes'),
        ({'size': {'height': 24, 'width': 20}}, r"has size={'height': 24, 'width': 20}, which is no square"),
        ({'size': 24, 'crop_size': 30, 'do_center_crop': True}, 'cuts 30 pixels out of 24'),
        ({'size': 30}, 'makes pictures of 30 pixels, but the positions of ViT are for 24'),
        ({'size': 24, 'image_mean': [0.1, 0.5, 0.5]}, r'has the mean \(0.1, 0.5, 0.5\), but ViT has \(0.5,\)'),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tmp_path, settings, what):
    encoder = encoders.ViT(width=None, patch=8, image_size=24)
    with pytest.raises(ValueError, match=what):
        pretrained.read_preprocessing(write(tmp_path, settings), encoder=encoder)


def test_files_that_are_missing_or_of_another_model_are_told(tmp_path):
    write(tmp_path, {}, model='bert')
    with pytest.raises(ValueError, match="is for a model of type 'bert'; the processors that are known"):
        pretrained.read_preprocessing(tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text('[]')
    with pytest.raises(ValueError, match='tells no preprocessing, no image_processor; get it again'):
        pretrained.read_preprocessing(tmp_path)
    (tmp_path / 'preprocessor_config.json').unlink()
    with pytest.raises(ValueError, match=r'there is no preprocessor_config\.json beside the weights of'):
        pretrained.read_preprocessing(tmp_path)
