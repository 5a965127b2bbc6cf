"""Scores of pixels and points: against scikit-learn, and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mmtl_jax import metrics
from mmtl_jax.metrics.pixels import at_size

generator = np.random.default_rng(0)


def test_one_confusion_matrix_over_all_pictures():
    targets, predicted = generator.integers(0, 4, (2, 5, 6, 7))
    targets[targets == 3], predicted[predicted == 3] = 255, 2  # Class 3 occurs nowhere.
    targets[0, 0, 0] = -1
    confusion = sum(metrics.pixel_confusion(*pair, 4) for pair in zip(targets, predicted, strict=True))
    counted = (targets >= 0) & (targets < 255)
    truth, guess = targets[counted], predicted[counted]
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(truth, guess, 4))
    scores = metrics.segmentation(confusion)
    assert scores['miou'] == pytest.approx(sklearn_metrics.jaccard_score(truth, guess, average='macro'))
    assert scores['pixel_accuracy'] == pytest.approx(sklearn_metrics.accuracy_score(truth, guess))


def test_no_pixel_to_score():
    ignored = np.full((2, 2), 255)
    assert metrics.segmentation(metrics.pixel_confusion(ignored, np.zeros((2, 2), int), 2)) == {}
    assert metrics.depth([np.full((2, 2), np.nan)], [np.ones((2, 2))]) == metrics.depth([], []) == {}
    assert metrics.normals([np.zeros((2, 2, 3))], [np.ones((2, 2, 3))]) == metrics.normals([], []) == {}
    assert metrics.dense_errors([], []) == metrics.keypoints([], []) == {}
    assert metrics.keypoints([np.zeros((2, 3))], [np.zeros((2, 2))]) == {}


@pytest.mark.parametrize('label', [-2, 3])
def test_a_class_out_of_range(label):
    with pytest.raises(ValueError, match=rf'a mask has the class {label}, expected 0 to 2 \(num_classes=3\)'):
        metrics.pixel_confusion(np.array([[0, label]]), np.zeros((1, 2), int), 3)


def test_only_the_prediction_is_resized():
    np.testing.assert_array_equal(at_size(np.array([[0, 1]]), (2, 4)), [[0, 0, 1, 1]] * 2)
    np.testing.assert_array_equal(at_size(np.arange(16).reshape(4, 4), (2, 1)), [[6], [14]])
    np.testing.assert_array_equal(
        metrics.pixel_confusion(np.array([[0, 0, 1, 1]]), np.array([[0, 1]]), 2), 2 * np.eye(2)
    )


def test_depth():
    target = np.array([[2.0, 4.0], [0.0, np.nan]])
    # Errors of .2 and 2; ratios of 1.1 and 2, of which none but 1.1 is below 1.25^3 = 1.95.
    scores = metrics.depth(
        [target, np.array([[1.0, 1.0]])], [np.array([[2.2, 2.0], [9.0, 9.0]]), np.array([[1.5, -1.0]])]
    )
    # The second picture has errors of .5 and 2, ratios of 1.5 and 1000.
    assert scores == pytest.approx(
        {
            'abs_error': (0.2 + 2 + 0.5 + 2) / 4,
            'rel_error': (0.1 + 0.5 + 0.5 + 2) / 4,
            'rmse': np.sqrt((0.04 + 4 + 0.25 + 4) / 4),
            'delta1': 1 / 4,
            'delta2': 2 / 4,
            'delta3': 2 / 4,
        }
    )


def test_normals():
    degrees = np.array([0.0, 10.0, 20.0, 25.0, 45.0])
    radians = np.radians(degrees)
    predicted = np.stack([np.cos(radians), np.sin(radians), 0 * radians], axis=-1)[None] * 3
    target = np.tile([2.0, 0.0, 0.0], (1, 5, 1))
    missing = np.array([[[np.nan, 0, 0], [0, 0, 0]]])
    scores = metrics.normals([target, missing], [predicted, np.ones((1, 2, 3))])
    assert scores == pytest.approx(
        {'angle_mean': 20, 'angle_median': 20, 'within_11': 2 / 5, 'within_22': 3 / 5, 'within_30': 4 / 5}, rel=1e-5
    )
    assert metrics.normals([target], [np.zeros((1, 5, 3))])['angle_mean'] == pytest.approx(90)


def test_dense_errors():
    target = np.array([[[1.0, np.nan], [3.0, 4.0]]])
    assert metrics.dense_errors([target], [np.array([[[2.0, 7.0], [3.0, 1.0]]])]) == pytest.approx(
        {'abs_error': 4 / 3, 'rmse': np.sqrt(10 / 3)}
    )


def test_keypoints():
    target = np.array([[0.5, 0.5, 2], [0.2, 0.2, 1], [0.9, 0.9, 0], [0.1, 0.1, 2]])
    predicted = np.array([[0.53, 0.54], [0.2, 0.2], [0.0, 0.0], [0.4, 0.5]])
    # Distances .05, 0 and .5; the third point is unknown. Float rounding puts .05 on either side of itself.
    scores = metrics.keypoints([target], [predicted])
    assert scores['distance'] == pytest.approx(0.55 / 3)
    assert scores['pck10'] == pytest.approx(2 / 3)
    assert metrics.keypoints([target[1:]], [predicted[1:]])['pck5'] == pytest.approx(1 / 2)
