"""Areas and overlaps of boxes, by hand."""

import jax
import numpy as np

from mmtl_jax.nn import box_area, box_iou, box_overlap

BOXES = np.array([[0, 0, 2, 2], [1, 1, 3, 4], [5, 5, 5, 6], [2, 0, 1, 1]], np.float32)


def test_areas():
    np.testing.assert_array_equal(box_area(BOXES), [4, 6, 0, 0])


def test_overlaps_of_all_pairs():
    intersection, union = jax.jit(box_overlap)(BOXES[:, None], BOXES[None])
    np.testing.assert_array_equal(intersection[:2, :2], [[4, 1], [1, 6]])
    np.testing.assert_array_equal(union[:2, :2], [[4, 9], [9, 6]])
    iou = jax.jit(box_iou)(BOXES[:, None], BOXES[None])
    np.testing.assert_allclose(iou[:2, :2], [[1, 1 / 9], [1 / 9, 1]], rtol=1e-6)
    assert not np.any(iou[2:]), 'without area there is no overlap, and no NaN'
