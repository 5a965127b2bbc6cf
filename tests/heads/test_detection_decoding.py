"""Decoding of detections: non-maximum suppression against plain numpy, and boxes by hand."""

import jax
import numpy as np

from mmtl_jax.heads.detection_decoding import cell_boxes, decode_detections, non_maximum_suppression
from tests.heads.plain_boxes import suppress

CASES, BOXES = 1000, 24


def random_cases() -> tuple[np.ndarray, ...]:
    """Returns boxes that crowd around a few places, scores with ties, few labels, and padding."""
    generator = np.random.default_rng(0)
    places = generator.uniform(0, 0.6, (CASES, 4, 2))[
        np.arange(CASES)[:, None], generator.integers(0, 4, (CASES, BOXES))
    ]
    low = places + generator.normal(0, 0.05, places.shape)
    boxes = np.concatenate([low, low + generator.uniform(0.1, 0.4, low.shape)], axis=-1).astype(np.float32)
    boxes[:, 1] = boxes[:, 0]
    boxes[:, 2, 2:] = boxes[:, 2, :2]  # No area.
    scores = np.round(generator.uniform(size=(CASES, BOXES)), 1).astype(np.float32)
    labels = generator.integers(0, 1 + np.arange(CASES) % 3, (BOXES, CASES)).T
    mask = generator.uniform(size=(CASES, BOXES)) < generator.choice([0.0, 0.5, 1.0], CASES, p=[0.1, 0.4, 0.5])[:, None]
    return boxes, scores, labels, mask


def test_suppression_is_the_greedy_algorithm_in_a_thousand_random_cases():
    boxes, scores, labels, mask = random_cases()
    for threshold in (0.5, 0.3):
        poisoned = np.where(mask[..., None], boxes, np.nan), np.where(mask, scores, np.nan)
        got = jax.jit(non_maximum_suppression)(*poisoned, labels, mask, iou_threshold=threshold)
        expected = [suppress(*case, threshold) for case in zip(boxes, scores, labels, mask, strict=True)]
        np.testing.assert_array_equal(got, expected)
    assert 0.1 < np.mean(expected) < 0.6, 'the cases have boxes that stay and boxes that go'


def test_a_chain_of_boxes_is_followed_to_its_end():
    # Each overlaps the next by 60 percent of their union: the first suppresses the second, which spares the third.
    low = 0.25 * np.arange(9)[:, None] * np.array([[1, 0]])
    boxes = np.concatenate([low, low + 1], axis=-1)[None].astype(np.float32)
    stays = jax.jit(non_maximum_suppression)(boxes, -np.arange(9.0)[None], np.zeros((1, 9), int), iou_threshold=0.5)
    np.testing.assert_array_equal(stays[0], np.arange(9) % 2 == 0)


def test_a_cell_reaches_to_its_four_edges():
    boxes = jax.jit(cell_boxes)(np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (1, 2, 4, 1)))
    np.testing.assert_allclose(boxes[0, 1, 2], [0.75 - 0.1, 0.625 - 0.2, 0.75 + 0.3, 0.625 + 0.4], rtol=1e-6)


def predictions(height: int = 4, width: int = 4) -> dict[str, np.ndarray]:
    """Returns three centres: two of one object in neighbouring cells, of which the classes differ, and another one."""
    centres = np.full((1, height, width), -20.0, np.float32)
    centres[0, 1, 1], centres[0, 1, 2], centres[0, 3, 3] = 2.0, 1.0, 0.0
    classes = np.zeros((1, height, width, 3), np.float32)
    classes[0, 1, 1, 2] = classes[0, 1, 2, 1] = classes[0, 3, 3, 0] = 30.0
    distances = np.full((1, height, width, 4), 0.5, np.float32)
    distances[0, 1, 2, 1::2] = 0.75, 0.25
    distances[0, 3, 3] = 0.1
    return {'centres': centres, 'classes': classes, 'distances': distances}


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def test_detections_by_hand():
    found = jax.jit(lambda p: decode_detections(p, max_detections=6))(predictions())
    assert found['boxes'].shape == (1, 6, 4)
    # The two classes of one place do not suppress each other.
    np.testing.assert_allclose(found['scores'][0, :3], [sigmoid(2), sigmoid(1), 0.5], rtol=1e-5)
    np.testing.assert_array_equal(found['labels'][0, :3], [2, 1, 0])
    np.testing.assert_allclose(found['boxes'][0, :2], [[0, 0, 0.875, 0.875]] * 2, atol=1e-6)
    np.testing.assert_allclose(found['boxes'][0, 2], [0.775, 0.775, 0.975, 0.975], atol=1e-6)
    assert np.all(found['scores'][0, 3:] < 1e-6)

    alone = jax.jit(lambda p: decode_detections(p, max_detections=3, class_agnostic=True))(predictions())
    np.testing.assert_allclose(alone['scores'], [[sigmoid(2), 0.5, -1]], rtol=1e-5)
    np.testing.assert_array_equal(alone['labels'], [[0, 0, -1]])
    np.testing.assert_array_equal(alone['boxes'][0, 2], np.zeros(4))


def test_a_small_map_gives_no_more_than_its_cells():
    assert jax.eval_shape(decode_detections, predictions())['scores'].shape == (1, 16)
