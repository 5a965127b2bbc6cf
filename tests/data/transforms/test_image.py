"""Transforms of pictures."""

import numpy as np
import pytest

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.transforms.base import is_random


def picture(height=12, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def run(spec, example, seed=0):
    step = build(spec, transforms)
    return step(example, np.random.default_rng(seed)) if is_random(step) else step(example)


def test_resize_pads_to_a_white_square():
    result = run({'name': 'resize', 'key': 'image', 'size': 10}, {'image': np.zeros((10, 20, 3), np.uint8)})['image']
    assert result.shape == (10, 10, 3)
    # Twice as wide as high: five black rows between white ones.
    np.testing.assert_array_equal(result[:, 5, 0], [255] * 2 + [0] * 5 + [255] * 3)
    free = run({'name': 'resize', 'key': 'image', 'size': 10, 'square': False}, {'image': picture()})['image']
    assert free.shape == (6, 10, 3)
    with_margin = run({'name': 'resize', 'key': 'image', 'size': 10, 'margin': 2}, {'image': picture() // 2})['image']
    assert (with_margin[:2] == 255).all()
    assert (with_margin[:, -2:] == 255).all()


def test_resize_by_the_shorter_side_or_both():
    for image in (picture(10, 20), picture(20, 10)):
        shorter = run({'name': 'resize', 'key': 'image', 'size': 7, 'edge': 'shorter'}, {'image': image})['image']
        assert shorter.shape == (7 * image.shape[0] // 10, 7 * image.shape[1] // 10, 3)
        both = run({'name': 'resize', 'key': 'image', 'size': 7, 'edge': 'both', 'resample': 'box'}, {'image': image})
        assert both['image'].shape == (7, 7, 3)
    for wrong in ({'edge': 'width'}, {'edge': 'both', 'margin': 1}):
        with pytest.raises(ValueError, match=r"edge must be one of .*'both'\), and 'longer' with a margin, got"):
            run({'name': 'resize', 'key': 'image', 'size': 7, **wrong}, {})
    with pytest.raises(ValueError, match=r"resample must be one of nearest, .*, got 'cubic'"):
        run({'name': 'resize', 'key': 'image', 'size': 7, 'resample': 'cubic'}, {})


def test_random_crop_is_a_window_of_the_padded_picture():
    image = picture(9, 9)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=7)
    windows = {padded[y : y + 8, x : x + 8].tobytes() for y in range(6) for x in range(6)}
    seen = set()
    for seed in range(60):
        crop = run({'name': 'random_crop', 'key': 'image', 'size': 8, 'pad': 2, 'fill': 7}, {'image': image}, seed)
        seen.add(crop['image'].tobytes())
    assert seen <= windows
    assert len(seen) > 20


def test_random_crop_without_padding_and_centre_crop():
    image = picture(9, 9)
    windows = {image[y : y + 8, x : x + 8].tobytes() for y in range(2) for x in range(2)}
    seen = {
        run({'name': 'random_crop', 'key': 'image', 'size': 8}, {'image': image}, seed)['image'].tobytes()
        for seed in range(40)
    }
    assert seen == windows
    centre = run({'name': 'centre_crop', 'key': 'image', 'size': 7}, {'image': image})['image']
    np.testing.assert_array_equal(centre, image[1:8, 1:8])


def test_flip_is_forbidden_by_a_flag():
    image = picture()
    results = [run({'name': 'random_flip', 'key': 'image'}, {'image': image}, seed)['image'] for seed in range(20)]
    flipped = [np.array_equal(result, image[:, ::-1]) for result in results]
    assert all(f or np.array_equal(result, image) for f, result in zip(flipped, results, strict=True))
    assert 4 < sum(flipped) < 16
    spec = {'name': 'random_flip', 'key': 'image', 'rate': 1.0, 'unless': 'nomirror'}
    assert run(spec, {'image': image, 'nomirror': 1})['image'] is image
    np.testing.assert_array_equal(run(spec, {'image': image, 'nomirror': 0})['image'], image[:, ::-1])


def test_colour_jitter_is_brightness_then_contrast_then_saturation():
    image = picture()
    result = run({'name': 'colour_jitter', 'key': 'image'}, {'image': image}, seed=3)['image']
    rng = np.random.default_rng(3)
    brightness, contrast, saturation = (1 + rng.uniform(-0.2, 0.2) for _ in range(3))
    luma = np.array([0.299, 0.587, 0.114])
    expected = image / 255 * brightness
    mean = (expected @ luma).mean()
    expected = mean + contrast * (expected - mean)
    grey = (expected @ luma)[..., None]
    expected = grey + saturation * (expected - grey)
    # float32 against float64.
    np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=1e-5)
    assert result.dtype == np.float32


def test_no_jitter_and_no_affine_change_nothing():
    image = picture(16, 16)
    still = run(
        {'name': 'colour_jitter', 'key': 'image', 'brightness': 0, 'contrast': 0, 'saturation': 0}, {'image': image}
    )
    np.testing.assert_allclose(still['image'], image / 255, atol=1e-6)
    spec = {'name': 'random_affine', 'key': 'image', 'degrees': 0, 'scale': (1.0, 1.0), 'translate': 0}
    np.testing.assert_array_equal(run(spec, {'image': image})['image'], image)


def test_affine_turns_around_the_centre():
    image = np.full((31, 31, 3), 255, np.uint8)
    image[15, 15] = 0
    image[3, 15] = 100
    spec = {'name': 'random_affine', 'key': 'image', 'degrees': 90, 'scale': (1.0, 1.0), 'translate': 0}
    angles = [np.random.default_rng(seed).uniform(-90, 90) for seed in range(300)]
    seed = int(np.argmax(angles))
    turned = run(spec, {'image': image}, seed)['image'][..., 0]
    assert turned[15, 15] < 30
    # Nearly a quarter turn brings the mark above the centre to its side.
    assert min(turned[13:18, 3].min(), turned[13:18, 27].min()) < 200
    assert turned[3, 15] == 255


def test_random_resized_crop_has_the_size():
    result = run({'name': 'random_resized_crop', 'key': 'image', 'size': 6}, {'image': picture()})['image']
    assert result.shape == (6, 6, 3)
    assert result.dtype == np.uint8


def test_grey_pictures_become_rgb():
    grey = picture()[..., :1]
    np.testing.assert_array_equal(
        run({'name': 'to_rgb', 'key': 'image'}, {'image': grey})['image'], grey.repeat(3, axis=2)
    )
    with pytest.raises(ValueError, match=r'resize needs a picture of shape \[h, w, 3\], got \(12, 20, 1\); use to_rgb'):
        run({'name': 'resize', 'key': 'image', 'size': 4}, {'image': grey})


@pytest.mark.parametrize('name', ['resize', 'centre_crop', 'random_crop', 'random_resized_crop'])
def test_a_missing_picture_stays_missing(name):
    for missing in ({}, {'image': None}, {'image': np.zeros((1, 1, 3), np.uint8)}):
        assert run({'name': name, 'key': 'image', 'size': 8}, missing).get('image') is None


def test_too_small_a_picture():
    with pytest.raises(ValueError, match='random_crop: a picture of 12 x 20 pixels is too small for 16'):
        run({'name': 'random_crop', 'key': 'image', 'size': 16}, {'image': picture()})
    with pytest.raises(ValueError, match='resize: size 4 leaves no pixel inside a margin of 2'):
        run({'name': 'resize', 'key': 'image', 'size': 4, 'margin': 2}, {})


def test_arguments_are_left_alone():
    image = picture(16, 16)
    kept = image.copy()
    for name in ('random_crop', 'random_flip', 'colour_jitter', 'random_affine', 'random_resized_crop', 'to_float'):
        spec = {'name': name, 'key': 'image'} | ({'size': 8} if 'crop' in name else {})
        example = {'image': image, 'other': 1}
        assert run(spec, example)['other'] == 1
        np.testing.assert_array_equal(image, kept)
        assert example.keys() == {'image', 'other'}
