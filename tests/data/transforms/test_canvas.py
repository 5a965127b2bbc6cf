"""Pictures of one thing get a place."""

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.kinds import check_boxes

SPEC = {'name': 'place_on_canvas', 'key': 'image', 'size': (40, 64), 'label': 'label'}


def picture(seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, size=(side, side, 3), dtype=np.uint8)


def test_the_box_is_where_the_picture_is():
    step = build({**SPEC, 'scale': (1.0, 1.0)}, transforms)
    for seed in range(20):
        placed = step({'image': picture(), 'label': 7}, np.random.default_rng(seed))
        assert placed['image'].shape == (40, 64, 3)
        check_boxes(placed['objects/bbox'])
        top, left, bottom, right = np.rint(placed['objects/bbox'][0] * (40, 64, 40, 64)).astype(int)
        np.testing.assert_array_equal(placed['image'][top:bottom, left:right], picture())
        np.testing.assert_array_equal(placed['objects/label'], [7])


def test_it_is_scaled_as_far_as_it_fits():
    step = build({**SPEC, 'scale': (3.0, 9.0), 'label': None}, transforms)
    placed = step({'image': picture()}, np.random.default_rng(0))
    box = placed['objects/bbox'][0] * (40, 64, 40, 64)
    np.testing.assert_allclose(box[2:] - box[:2], [40, 40], atol=1e-4)
    np.testing.assert_array_equal(placed['objects/label'], [0])


def test_with_a_seed_the_place_is_a_function_of_the_picture():
    step, other = (build({**SPEC, 'seed': seed, 'scale': (0.5, 1.5)}, transforms) for seed in (0, 1))
    one, again = step({'image': picture(), 'label': 1}), step({'image': picture(), 'label': 1})
    np.testing.assert_array_equal(one['image'], again['image'])
    assert not np.array_equal(one['objects/bbox'], other({'image': picture(), 'label': 1})['objects/bbox'])
    assert not np.array_equal(one['objects/bbox'], step({'image': picture(1), 'label': 1})['objects/bbox'])
    assert step({'image': None, 'label': 1})['objects/bbox'] is None


def test_classes_become_boxes_in_training_and_evaluation():
    examples = [{'image': picture(seed), 'label': seed} for seed in range(4)]
    rows = data.prepare(
        data.SequenceSource(examples),
        data.build_preprocess(
            inputs={'image': 'image'},
            targets={'detection': {'boxes': 'objects/bbox', 'labels': 'objects/label'}, 'category': 'label'},
            augment=[SPEC],
            eval_steps=[{**SPEC, 'seed': 0}],
        ),
    )
    layout = data.make_layout(rows)
    loader = data.train_loader(rows, batch_size=4, seed=0, layout=layout)
    _, still = next(iter(data.eval_loader(rows, batch_size=4, layout=layout)))
    for batch in (next(loader), still):
        assert batch.inputs['image'].shape == (4, 40, 64, 3)
        np.testing.assert_array_equal(batch.targets['detection']['labels'].values[:, 0], batch.targets['category'])
    loader.close()


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match=r'place_on_canvas: scale must be .* got \(0.0, 1.0\)'):
        build({**SPEC, 'scale': (0.0, 1.0)}, transforms)
    with pytest.raises(ValueError, match='place_on_canvas: size must be the side in pixels'):
        build({**SPEC, 'size': 0}, transforms)
