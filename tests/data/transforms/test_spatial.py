"""Augmentation of pictures with all that lies over them: everything moves together, and nothing else moves."""

import numpy as np
import pytest

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.transforms.base import is_random
from mmtl_jax.data.transforms.layers import Layers, boxes_around, move, move_boxes, move_keypoints, renumber
from mmtl_jax.data.transforms.spatial import affine, scaling
from tests.data.transforms.scenes import LAYERS, check_agreement, scene

STILL = {'degrees': 0.0, 'shear': 0.0, 'scale': (1.0, 1.0), 'translate': 0.0, 'flip': 0.0}


def run(name, example, seed=0, **options):
    step = build({'name': name, 'layers': LAYERS} | options, transforms)
    return step(example, np.random.default_rng(seed)) if is_random(step) else step(example)


def layers(**fields):
    return Layers(**{**LAYERS, **fields})


@pytest.mark.parametrize('seed', range(3))
def test_the_layers_of_a_scene_agree_before_anything_is_done(seed):
    check_agreement(scene(seed=seed), slack=1e-4, zoom=1.0)


def test_the_identity_leaves_every_bit():
    example = scene()
    assert run('random_spatial', example, **STILL) is example
    assert run('resize_with_padding', example, size=(60, 90)) is example
    whole = run('random_spatial_crop', example, size=(60, 90), scale=(1.0, 1.0), aspect=(1.0, 1.0))
    assert all(np.array_equal(whole[key], example[key]) for key in example)


def test_a_flip_is_exact_and_exchanges_pairs():
    example = scene()
    flipped = run('random_spatial', example, **{**STILL, 'flip': 1.0})
    for key in ('image', 'mask', 'instances', 'depth'):
        np.testing.assert_array_equal(flipped[key], example[key][:, ::-1])
        assert flipped[key].dtype == example[key].dtype
    mirrored = 1 - example['objects/bbox'][:, [3, 1]]
    np.testing.assert_allclose(flipped['objects/bbox'][:, 1::2], mirrored, atol=1e-6)  # float32
    np.testing.assert_allclose(flipped['objects/bbox'][:, ::2], example['objects/bbox'][:, ::2], atol=1e-6)
    # Keypoints 0 and 1 are a pair, such as two eyes.
    np.testing.assert_allclose(flipped['keypoints'][[1, 0, 2], 1], 1 - example['keypoints'][:, 1], atol=1e-6)
    check_agreement(flipped, slack=1e-4, zoom=1.0)
    kept = run('random_spatial', {**example, 'nomirror': 1}, **{**STILL, 'flip': 1.0}, unless='nomirror')
    np.testing.assert_array_equal(kept['image'], example['image'])


def test_a_shift_by_whole_pixels_is_exact():
    example = scene()
    shifted = move(example, layers(), scaling(1.0, 1.0, 7.0, -5.0), (60, 90), fill=9)
    np.testing.assert_array_equal(shifted['image'][:-5, 7:], example['image'][5:, :-7])
    assert (shifted['image'][:, :7] == 9).all()
    assert (shifted['image'][-5:] == 9).all()
    assert (shifted['mask'][:, :7] == 255).all(), 'what comes into view is ignored'
    assert (shifted['instances'][:, :7] == 0).all()
    assert (shifted['depth'][:, :7] == 0).all(), 'and not measured'
    check_agreement(shifted, slack=1e-4)
    whole = move({**example, 'mask': example['mask'].astype(np.int32)}, layers(), scaling(1.0, 1.0, 7.0, 0.0), (60, 90))
    assert (whole['mask'][:, :7] == -1).all()
    assert whole['mask'].dtype == np.int32


SPATIAL = {
    'flip': {**STILL, 'flip': 0.5},
    'shift': {**STILL, 'translate': 0.3},
    'zoom': {**STILL, 'scale': (0.6, 1.6)},
    'all but rotation': {**STILL, 'flip': 0.5, 'translate': 0.2, 'scale': (0.6, 1.6)},
}


@pytest.mark.parametrize('name', SPATIAL)
@pytest.mark.parametrize('seed', range(8))
def test_boxes_masks_and_keypoints_agree_to_the_pixel(name, seed):
    example = scene(seed=seed)
    kept = {key: np.array(value) for key, value in example.items()}
    moved = run('random_spatial', example, seed, **SPATIAL[name])
    check_agreement(moved, slack=1.0)
    assert all(np.array_equal(example[key], kept[key]) for key in kept), 'the argument is left alone'


@pytest.mark.parametrize('seed', range(12))
def test_after_rotation_and_shear_a_box_holds_its_object(seed):
    moved = run('random_spatial', scene(seed=seed), seed, degrees=40.0, shear=15.0, scale=(0.7, 1.3), translate=0.1)
    check_agreement(moved, slack=1.0, turned=True)
    assert ((moved['objects/bbox'] >= 0) & (moved['objects/bbox'] <= 1)).all()


@pytest.mark.parametrize('seed', range(12))
def test_crops_agree_and_keep_a_box(seed):
    moved = run('random_spatial_crop', scene(seed=seed), seed, size=(50, 70), scale=(0.1, 0.8))
    assert moved['image'].shape == (50, 70, 3)
    assert len(moved['objects/bbox']) > 0
    check_agreement(moved, slack=1.0)


@pytest.mark.parametrize('seed', range(12))
def test_tight_boxes_are_those_of_the_instances(seed):
    options = {'degrees': 40.0, 'shear': 15.0, 'scale': (0.7, 1.3), 'translate': 0.2}
    moved = run('random_spatial', scene(seed=seed), seed, layers={**LAYERS, 'tight': True}, **options)
    check_agreement(moved, slack=1e-4)  # float32
    loose = run('random_spatial', scene(seed=seed), seed, **options)
    assert set(moved['objects/label']) <= set(loose['objects/label'])
    np.testing.assert_array_equal(moved['image'], loose['image'])


def test_boxes_of_which_nothing_is_seen_are_dropped():
    instances = np.zeros((8, 10, 1), np.uint8)
    instances[2:4, 5:10] = 3
    instances[7, 0] = 1
    boxes, seen = boxes_around(instances, 3)
    np.testing.assert_allclose(boxes, [[7 / 8, 0, 1, 0.1], [0.25, 0.5, 0.5, 1]], atol=1e-6)
    np.testing.assert_array_equal(seen, [0, 2])
    none, seen = boxes_around(instances[:2], 3)
    assert none.shape == (0, 4)
    assert seen.shape == (0,)


def test_zoomed_depth_is_nearer():
    near = run('random_spatial', scene(), **{**STILL, 'scale': (2.0, 2.0)})
    check_agreement(near, slack=1.0, zoom=2.0)
    crop = run('random_spatial_crop', scene(), size=(60, 90), scale=(0.25, 0.25), aspect=(1.0, 1.0))
    check_agreement(crop, slack=1.0, zoom=2.0)


def test_resizing_with_padding():
    example = scene(60, 90)
    small = run('resize_with_padding', example, size=45, fill=7)
    assert small['image'].shape == (45, 45, 3)
    assert small['mask'].shape == (45, 45, 1)
    # 60 x 90 becomes 30 x 45, between 7 and 8 rows of padding.
    assert (small['image'][:7] == 7).all()
    assert (small['image'][37:] == 7).all()
    assert (small['mask'][:7] == 255).all()
    assert (small['mask'][7:37] != 255).all()
    assert (small['depth'][37:] == 0).all()
    check_agreement(small, slack=1.0, zoom=1.0)
    np.testing.assert_allclose(small['objects/bbox'][:, 1::2], example['objects/bbox'][:, 1::2], atol=1e-6)
    np.testing.assert_allclose(small['objects/bbox'][:, ::2] * 45, 7 + 30 * example['objects/bbox'][:, ::2], atol=1e-4)


def test_boxes_that_mostly_leave_are_dropped_with_their_entries():
    boxes = np.array([[0, 0, 0.5, 0.2], [0, 0.5, 0.5, 0.9], [0.2, 0.1, 0.4, 0.3]], np.float32)
    # By half the width to the left: the first leaves, the second stays, of the third nothing is left either.
    moved, kept = move_boxes(boxes, (10, 20), scaling(1.0, 1.0, -10.0, 0.0), (10, 20), 0.5)
    np.testing.assert_array_equal(kept, [1])
    np.testing.assert_allclose(moved, [[0, 0, 0.5, 0.4]], atol=1e-6)
    half, kept = move_boxes(boxes[:1], (10, 20), scaling(1.0, 1.0, -2.0, 0.0), (10, 20), 0.5)
    np.testing.assert_array_equal(kept, [0])
    np.testing.assert_allclose(half, [[0, 0, 0.5, 0.1]], atol=1e-6)
    assert len(move_boxes(boxes[:1], (10, 20), scaling(1.0, 1.0, -2.0, 0.0), (10, 20), 0.51)[1]) == 0
    np.testing.assert_array_equal(renumber(np.array([0, 1, 2, 3], np.uint8), np.array([0, 2])), [0, 1, 0, 2])
    empty, kept = move_boxes(np.zeros((0, 4)), (10, 20), scaling(1.0, 1.0, 1.0, 0.0), (10, 20), 0.5)
    assert empty.shape == (0, 4)
    assert kept.shape == (0,)


def test_turning_by_a_quarter():
    """The one rotation that is exact."""
    example = scene(60, 60)
    turn = affine(angle=np.pi / 2)
    matrix = np.concatenate([turn, (np.array([30, 30]) - turn @ [30, 30])[:, None]], axis=1)
    turned = move(example, layers(), matrix, (60, 60))
    for key in ('mask', 'instances', 'depth'):
        np.testing.assert_array_equal(turned[key], np.rot90(example[key]), err_msg='positive angles turn to the left')
    check_agreement(turned, slack=1e-3, zoom=1.0)


def test_keypoints_that_leave_are_not_seen():
    points = np.array([[0.5, 0.9, 2], [0.5, 0.1, 1], [0.3, 0.3, 0]])
    moved = move_keypoints(points, (10, 20), scaling(1.0, 1.0, 4.0, 0.0), (10, 20))
    np.testing.assert_allclose(moved, [[0, 0, 0], [0.5, 0.3, 1], [0, 0, 0]], atol=1e-6)


def test_missing_layers_stay_missing():
    example = {**scene(), 'mask': None, 'depth': None, 'keypoints': None, 'objects/bbox': None, 'objects/label': None}
    for name, options in (
        ('random_spatial', {}),
        ('random_spatial_crop', {'size': 32}),
        ('resize_with_padding', {'size': 32}),
    ):
        moved = run(name, example, **options)
        assert all(moved[key] is None for key in ('mask', 'depth', 'keypoints', 'objects/bbox', 'objects/label'))
        nothing = {**example, 'image': None}
        assert run(name, nothing, **options) is nothing


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'mask': np.zeros((5, 6, 1), np.uint8)}, "'mask' has 5 x 6 pixels, its picture 'image' has 60 x 90"),
        ({'image': np.zeros((60, 90, 3), np.float32)}, "'image' must be a picture .* of bytes, got .* float32"),
        ({'objects/label': np.zeros(2)}, "'objects/label' has 2 entries for 3 boxes"),
        ({'objects/bbox': np.array([[0, 0, 2, 1.0]])}, r'box number 0, \[0.0, 0.0, 2.0, 1.0\], reaches out'),
    ],
)
def test_layers_that_do_not_fit(changes, message):
    for name, options in (
        ('random_spatial', {}),
        ('random_spatial_crop', {'size': 32}),
        ('resize_with_padding', {'size': 32}),
    ):
        with pytest.raises(ValueError, match=message):
            run(name, {**scene(), **changes}, **options)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'layers': {'boxs': 'b'}}, "the layers of random_spatial has no argument 'boxs'; did you mean 'boxes'"),
        ({'layers': {'tight': True, 'boxes': 'b'}}, 'random_spatial: tight boxes need both boxes and instances'),
        ({'layers': {'masks': 'mask'}}, r"masks are several keys, write \('mask',\)"),
        ({'scale': (0.0, 1.0)}, r'scale must be the least and the largest zoom, above 0, got \(0.0, 1.0\)'),
        ({'flip': 2.0}, 'random_spatial: flip must be between 0 and 1, got 2.0'),
        ({'name': 'resize_with_padding', 'size': (4, 5, 6)}, 'size must be the side in pixels, or height and width'),
    ],
)
def test_what_cannot_be_built(spec, message):
    with pytest.raises(ValueError, match=message):
        build({'name': 'random_spatial', 'layers': LAYERS, **spec}, transforms)


def test_cleaning_boxes():
    example = {
        'bbox': np.array([[0.1, -0.2, 0.5, 0.5], [0.3, 0.3, 0.3, 0.6], [0.2, 1.1, 0.4, 1.3], [0, 0, 1, 1]]),
        'label': np.array([1, 2, 3, 4]),
        'crowd': np.array([False, False, False, True]),
    }
    step = build({'name': 'clean_boxes', 'boxes': 'bbox', 'with_boxes': ('label',), 'unless': ('crowd',)}, transforms)
    cleaned = step(example)
    np.testing.assert_allclose(cleaned['bbox'], [[0.1, 0, 0.5, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(cleaned['label'], [1])
    assert step({**example, 'bbox': None})['bbox'] is None


def test_one_box_becomes_a_list():
    step = build({'name': 'single_box', 'key': 'head', 'label': 'species'}, transforms)
    found = step({'head': np.array([0.1, 0.2, 0.3, 0.4]), 'species': 1})
    assert found['objects/bbox'].shape == (1, 4)
    np.testing.assert_array_equal(found['objects/label'], [1])
    none = step({'head': np.zeros(4), 'species': 1})
    assert none['objects/bbox'].shape == (0, 4)
    assert none['objects/label'].shape == (0,)
    assert step({'species': 1})['objects/bbox'] is None


def test_mapping_labels():
    mask = np.array([[7, 8, 3], [255, 0, 11]], np.uint8)
    step = build({'name': 'map_labels', 'key': 'mask', 'values': (7, 11, 8)}, transforms)
    np.testing.assert_array_equal(step({'mask': mask})['mask'], [[0, 2, 255], [255, 255, 1]])
    np.testing.assert_array_equal(step({'mask': mask.astype(np.int32) - 8})['mask'], [[-1, -1, -1], [-1, -1, -1]])
    assert step({'mask': mask})['mask'].dtype == np.uint8
    with pytest.raises(ValueError, match=r'values must be different numbers from 0 on, got \(1, 1\)'):
        build({'name': 'map_labels', 'key': 'mask', 'values': (1, 1)}, transforms)
