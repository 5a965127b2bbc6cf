"""Targets that lie in the picture: their form in a batch, nested keys, and every way in which they can be wrong."""

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.core.types import Ragged

SIZE = (6, 8)
TARGETS = {
    'detection': {
        'boxes': 'objects/bbox',
        'labels': {'key': 'objects/label', 'num_classes': 4},
        'crowd': 'objects/is_crowd',
    },
    'segmentation': {'key': 'mask', 'kind': 'mask', 'num_classes': 4},
    'depth': {'key': 'depth', 'kind': 'depth'},
    'pose': {'key': 'keypoints', 'kind': 'keypoints'},
}


def example(name='scene', boxes=((0.1, 0.2, 0.5, 0.9),), labels=(3,), **changes):
    mask = np.full((*SIZE, 1), 2, np.uint8)
    mask[0] = 255
    depth = np.full(SIZE, 1.5, np.float16)
    depth[0, 0] = np.nan
    objects = {'bbox': np.array(boxes, np.float32).reshape(-1, 4), 'label': np.array(labels, np.int64)}
    objects['is_crowd'] = np.arange(len(objects['bbox'])) % 2 == 1
    keypoints = np.array([[0.5, 0.25, 2], [7.0, 0, 0]], np.float32)
    image = np.zeros((*SIZE, 3), np.uint8)
    return {'image': image, 'objects': objects, 'mask': mask, 'depth': depth, 'keypoints': keypoints, **changes} | {
        'image/filename': f'{name}.png'
    }


def prepare(*examples, bad_examples='error', **targets):
    source = data.SequenceSource(list(examples), 'scenes')
    preprocess = data.build_preprocess(inputs={'image': 'image'}, targets={**TARGETS, **targets})
    return data.prepare(source, preprocess, bad_examples=bad_examples)


def test_a_batch_of_every_kind():
    rows = prepare(example(), example(boxes=(), labels=()), example(boxes=[[0, 0, 1, 1]] * 3, labels=(0, 1, 2)))
    layout = data.make_layout(rows)
    _, batch = next(iter(data.eval_loader(rows, batch_size=4, layout=layout)))
    boxes, labels = batch.targets['detection']['boxes'], batch.targets['detection']['labels']
    assert isinstance(boxes, Ragged)
    assert boxes.values.shape == (4, 8, 4)
    assert boxes.values.dtype == np.float32
    np.testing.assert_array_equal(boxes.values[0, 0], np.float32([0.1, 0.2, 0.5, 0.9]))
    np.testing.assert_array_equal(boxes.mask.sum(axis=1), [1, 0, 3, 0])
    np.testing.assert_array_equal(labels.mask, boxes.mask)
    np.testing.assert_array_equal(labels.values[2, :3], [0, 1, 2])
    assert labels.values.dtype == np.int32
    crowd = batch.targets['detection']['crowd']
    assert crowd.values.dtype == np.bool_
    np.testing.assert_array_equal(crowd.values[2, :3], [False, True, False])
    np.testing.assert_array_equal(crowd.mask, boxes.mask)
    # A picture without objects is labelled: it has none.
    np.testing.assert_array_equal(batch.labelled['detection'], [True, True, True, False])
    mask = batch.targets['segmentation']
    assert (mask.shape, mask.dtype) == ((4, *SIZE), np.int32), 'a mask is no picture and no sequence'
    assert (mask[0, 0] == -1).all()
    assert (mask[0, 1:] == 2).all()
    depth = batch.targets['depth']
    assert (depth.shape, depth.dtype) == ((4, *SIZE), np.float32)
    assert (depth[0, 0, 0], depth[0, 1, 1]) == (0.0, 1.5)
    np.testing.assert_array_equal(batch.targets['pose'][0], [[0.5, 0.25, 2], [7, 0, 0]])
    assert batch.inputs['image'].max() <= 1


def test_the_kind_of_a_mask_need_not_be_told_to_keep_it_from_being_scaled():
    source = data.SequenceSource([example()], 'scenes')
    rows = data.prepare(source, data.build_preprocess(inputs={'image': 'image'}, targets={'mask': 'mask'}))
    assert data.make_layout(rows).fields['targets/mask'].dtype == 'int32'
    assert data.make_layout(rows).fields['inputs/image'].picture


def test_missing_targets_are_unlabelled_rows():
    rows = prepare(example(), example(mask=None, depth=None, objects=None, keypoints=None))
    _, batch = next(iter(data.eval_loader(rows, batch_size=2, layout=data.make_layout(rows))))
    assert all(batch.labelled[task].tolist() == [True, False] for task in TARGETS)


BAD = [
    (
        {'boxes': [[0, 0, 0.5, 0.5], [0.2, 0.3, 1.2, 0.4]], 'labels': (1, 1)},
        r'box number 1, \[0.2, 0.3, 1.2, 0.4\], reaches out of the picture.* clean_boxes',
    ),
    ({'boxes': [[0.2, 0.3, 0.2, 0.4]]}, r'box number 0, \[0.2, 0.3, 0.2, 0.4\], has no area'),
    ({'boxes': [[0.2, np.nan, 0.4, 0.4]]}, r"'detection/boxes' \(key 'objects/bbox'\) holds NaN"),
    ({'labels': (4,)}, r"'detection/labels' \(key 'objects/label'\) is 4 somewhere, expected 0 to 3"),
    ({'labels': (-2,)}, 'is -2 somewhere, expected 0 to 3'),
    ({'labels': (1, 2)}, "'detection/labels' has 2 entries for 1 boxes; expected one for each"),
    ({'mask': np.zeros((5, 8, 1), np.uint8)}, r"'segmentation' \(mask\) has 5 x 8 pixels, its picture has 6 x 8"),
    ({'depth': np.ones((3, 4), np.float32)}, r"'depth' \(depth\) has 3 x 4 pixels, its picture has 6 x 8"),
    ({'mask': np.full(SIZE, 4, np.uint8)}, r"'segmentation' \(key 'mask'\) is 4 somewhere, expected 0 to 3 .*255 in"),
    ({'mask': np.zeros((*SIZE, 3), np.uint8)}, r'has shape \(6, 8, 3\), expected \[h, w\] \(mask\)'),
    ({'depth': np.full(SIZE, np.inf, np.float32)}, "'depth' .*holds inf"),
    ({'keypoints': np.array([[0.5, 1.5, 1]])}, r'has a visible point outside of the picture, \[\[0.5, 1.5\]\]'),
    ({'keypoints': np.ones((3, 2))}, r'has shape \(3, 2\), expected \[k, 3\] \(keypoints\)'),
]


@pytest.mark.parametrize(('changes', 'message'), BAD)
def test_bad_targets_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"'scenes', example 'wrong.png': .*{message}"):
        prepare(example(), example('wrong', **changes))


def test_bad_targets_are_skipped_and_counted():
    rows = prepare(
        example(), *(example(f'wrong{n}', **changes) for n, (changes, _) in enumerate(BAD)), bad_examples='skip'
    )
    assert sorted(rows.bad) == list(range(1, len(BAD) + 1))
    assert all(f'wrong{n}.png' in rows.bad[n + 1] for n in range(len(BAD)))
    loader = data.train_loader(rows, batch_size=len(rows), seed=0, layout=data.make_layout(rows))
    assert next(loader).real.sum() == 1
    assert loader.num_bad == len(BAD)
    loader.close()


LAYERS = {'masks': ('mask',), 'boxes': 'objects/bbox', 'keypoints': 'keypoints', 'depths': ('depth',)}


def build(*steps, stage='augment', targets=TARGETS):
    return data.build_preprocess(inputs={'image': 'image'}, targets=targets, **{stage: steps})


@pytest.mark.parametrize(
    ('spec', 'left_behind'),
    [
        ({'name': 'random_flip', 'key': 'image'}, 'detection/boxes'),
        ({'name': 'random_affine', 'key': 'image'}, 'detection/boxes'),
        ({'name': 'random_crop', 'key': 'image', 'size': 4}, 'detection/boxes'),
        ({'name': 'random_resized_crop', 'key': 'image', 'size': 4}, 'detection/boxes'),
        ({'name': 'random_spatial', 'layers': {**LAYERS, 'masks': ()}}, 'segmentation'),
        ({'name': 'random_spatial_crop', 'size': 4, 'layers': {**LAYERS, 'depths': ()}}, 'depth'),
        ({'name': 'random_spatial', 'layers': {**LAYERS, 'keypoints': None}}, 'pose'),
    ],
)
def test_no_step_moves_a_picture_away_from_its_targets(spec, left_behind):
    with pytest.raises(ValueError, match=f"'{spec['name']}' moves the picture and leaves the target '{left_behind}'"):
        build(spec)
    build(spec, targets={'detection': {'labels': 'objects/label'}})


def test_deterministic_steps_may_not_do_so_either():
    for stage, spec in (('steps', {'name': 'resize', 'size': 4}), ('eval_steps', {'name': 'centre_crop', 'size': 4})):
        with pytest.raises(ValueError, match=f"'{spec['name']}' moves the picture and leaves"):
            build({**spec, 'key': 'image'}, stage=stage)
    build({'name': 'resize', 'size': 4, 'key': 'image', 'edge': 'both'}, stage='steps')
    build({'name': 'random_spatial', 'layers': LAYERS}, {'name': 'colour_jitter', 'key': 'image'})


def test_a_picture_may_move_before_it_gets_its_place():
    flip, canvas = {'name': 'random_flip', 'key': 'image'}, {'name': 'place_on_canvas', 'key': 'image', 'size': 40}
    targets = {'detection': {'boxes': 'objects/bbox', 'labels': 'objects/label'}}
    build(flip, canvas, targets=targets)
    with pytest.raises(ValueError, match="'random_flip' moves the picture and leaves the target 'detection/boxes'"):
        build(canvas, flip, targets=targets)


def test_unknown_kinds():
    with pytest.raises(ValueError, match=r"targets/depth: kind must be one of \['boxes', .*got 'detph'"):
        prepare(example(), depth={'key': 'depth', 'kind': 'detph'})
    with pytest.raises(ValueError, match=r'inputs/image: kind must be .*only targets have one'):
        data.build_preprocess(inputs={'image': {'key': 'image', 'kind': 'mask'}}, targets={})
