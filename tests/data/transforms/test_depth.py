"""Depth and normals: shapes whose depth and normals are known by a formula."""

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data import transforms


def disc(size=41, radius=15):
    """Returns the mask of a disc in the middle, and each pixel's distance from there."""
    y, x = np.mgrid[:size, :size] - size // 2
    away = np.hypot(y, x)
    return (away < radius).astype(np.uint8)[..., None], away


def test_a_disc_becomes_half_a_ball():
    mask, away = disc()
    depth = transforms.depth_of_solids('mask', wall=2.0)({'mask': mask})['depth']
    assert (depth.shape, depth.dtype) == ((41, 41), np.float32)
    assert (depth[mask[..., 0] == 0] == 2.0).all()
    ball = np.sqrt(np.maximum(15**2 - away**2, 0)) / 41
    # The outline runs along pixels, so that near it the distance is off by up to one pixel.
    inner = away < 12
    np.testing.assert_allclose((2.0 - depth)[inner], ball[inner], atol=1.0 / 41)


def test_objects_end_at_each_other_and_at_the_edge():
    mask = np.zeros((6, 9), np.uint8)
    mask[1:5, :3], mask[1:5, 3:7] = 1, 2
    depth = transforms.depth_of_solids('mask')({'mask': mask})['depth']
    # Three and four columns wide: the middle column stands out most, and of four the two in the middle alike.
    assert depth[2, 1] < depth[2, 0] == depth[2, 2] < 1.0
    assert depth[2, 4] == depth[2, 5] < depth[2, 3]
    np.testing.assert_array_equal(depth[:, 7:], 1.0)


@pytest.mark.parametrize('focal', [None, 0.8])
def test_the_normals_of_a_slanted_plane(focal):
    """The plane a x + b y + c z = 1 is read off along the rays, by the formula for each kind of camera."""
    a, b, c = 0.3, -0.2, 0.5
    y, x = np.mgrid[:20, :30] + 0.5 - np.array([10, 15])[:, None, None]
    depth = (1 - (a * x + b * y) / 30) / c if focal is None else 1 / ((a * x + b * y) / (focal * 30) + c)
    depth[4, 6] = 0
    normals = transforms.normals_from_depth('depth', focal=focal)({'depth': depth.astype(np.float32)})['normals']
    assert (normals.shape, normals.dtype) == ((20, 30, 3), np.float32)
    missing = np.zeros((20, 30), bool)
    missing[[0, -1]] = missing[:, [0, -1]] = True
    for row, column in ((4, 6), (3, 6), (5, 6), (4, 5), (4, 7)):
        missing[row, column] = True
    np.testing.assert_array_equal((normals == 0).all(axis=-1), missing)
    expected = -np.array([a, b, c]) / np.linalg.norm([a, b, c])
    # Differences of float32 depths over two pixels lose three digits.
    np.testing.assert_allclose(normals[~missing], np.broadcast_to(expected, normals[~missing].shape), atol=2e-4)


def test_stored_numbers_become_a_disparity():
    stored = np.array([[0, 1, 257], [513, 2561, 65535]], np.uint16)[..., None]
    scaled = transforms.scale_depth('stored', 1 / 256, offset=1.0, out='disparity')({'stored': stored})['disparity']
    np.testing.assert_allclose(scaled[..., 0], [[0, 0, 1], [2, 10, 65534 / 256]], rtol=1e-6)
    assert scaled.dtype == np.float32


def test_missing_stays_missing():
    for transform in (transforms.depth_of_solids('a', 'b'), transforms.normals_from_depth('a', 'b')):
        assert transform({'a': None})['b'] is None


def test_depth_that_is_made_of_what_was_moved_is_no_target_left_behind():
    layers = {'instances': 'instance_mask'}
    made = ({'name': 'depth_of_solids', 'instances': 'instance_mask'},)
    spatial = {'name': 'random_spatial', 'layers': layers}
    options = {'inputs': {'image': 'image'}, 'targets': {'depth': {'key': 'depth', 'kind': 'depth'}}}
    mask, _ = disc()
    image = np.repeat(mask * 200, 3, axis=-1)
    preprocess = data.build_preprocess(**options, augment=(spatial, *made), eval_steps=made)
    example = preprocess.visit({'image': image, 'instance_mask': mask}, np.random.default_rng(0))
    solid = example['targets/depth'] < 1
    # The picture is read off bilinearly, so its edge is grey; what is bright for sure lies in the object.
    assert solid.any()
    assert solid[(example['inputs/image'] > 0.7).all(axis=-1) & (example['inputs/image'] < 0.9).all(axis=-1)].all()
    with pytest.raises(ValueError, match=r"'random_spatial' moves the picture and leaves the target 'depth'"):
        data.build_preprocess(**options, steps=made, augment=({'name': 'random_spatial', 'layers': {}},))


@pytest.mark.parametrize(
    ('name', 'arguments', 'sentence'),
    [
        ('scale_depth', {'scale': 0.0}, r'scale_depth: scale must be positive, got 0\.0'),
        ('depth_of_solids', {'wall': 0.3}, r'wall must be farther than the largest object, above 0\.5, got 0\.3'),
        ('normals_from_depth', {'focal': -1.0}, r'focal must be positive, or None for parallel rays, got -1\.0'),
    ],
)
def test_what_cannot_be(name, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        getattr(transforms, name)('key', **arguments)
