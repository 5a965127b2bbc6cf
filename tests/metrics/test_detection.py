"""Average precision on cases that can be computed by hand."""

import importlib.util

import numpy as np
import pytest

from mmtl_jax import metrics

pytest.importorskip('pycocotools', reason='average precision is that of pycocotools')


def detections(*found: tuple) -> dict[str, np.ndarray]:
    """Returns detections from (box, score, label), with a place that holds nothing behind them."""
    boxes = [box for box, _, _ in found] + [[0, 0, 0, 0]]
    return {
        'boxes': np.array(boxes, np.float32),
        'scores': np.array([score for _, score, _ in found] + [-1], np.float32),
        'labels': np.array([label for _, _, label in found] + [-1], np.int32),
    }


def objects(*there: tuple, crowd: tuple[bool, ...] | None = None) -> dict[str, np.ndarray]:
    """Returns objects from (box, label)."""
    target = {
        'boxes': np.array([box for box, _ in there], np.float32).reshape(-1, 4),
        'labels': np.array([label for _, label in there], np.int32),
    }
    return target if crowd is None else {**target, 'crowd': np.array(crowd)}


A, B, C = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0]
# Its IoU with A is .8: right at the seven thresholds .5, .55, ..., .8 (with .8 by a hair), wrong at three.
NEAR_A = [0.0, 0.0, 0.5, 0.401]


def test_perfect_detections():
    scores = metrics.mean_average_precision([detections((A, 0.9, 0), (B, 0.8, 2))], [objects((A, 0), (B, 2))])
    assert scores == pytest.approx({'ap': 1, 'ap50': 1, 'ap75': 1})


def test_thresholds():
    scores = metrics.mean_average_precision([detections((NEAR_A, 0.9, 0))], [objects((A, 0))])
    assert scores == pytest.approx({'ap': 0.7, 'ap50': 1, 'ap75': 1})


def test_an_object_that_is_not_found():
    # Precision 1 up to a recall of 1/2: 51 of the 101 points of the curve.
    scores = metrics.mean_average_precision([detections((A, 0.9, 0))], [objects((A, 0), (B, 0))])
    assert scores['ap'] == pytest.approx(51 / 101)


def test_no_detection_at_all():
    assert metrics.mean_average_precision([detections()], [objects((A, 0))]) == {'ap': 0, 'ap50': 0, 'ap75': 0}


def test_an_empty_picture():
    assert metrics.mean_average_precision([detections()], [objects()]) == {}
    assert metrics.mean_average_precision([], []) == {}
    assert metrics.mean_average_precision([detections((A, 0.9, 0))], [objects()]) == {}
    # What is seen in an empty picture is wrong: it comes first, so that the right one has precision 1/2.
    scores = metrics.mean_average_precision(
        [detections((A, 0.9, 0)), detections((A, 0.8, 0))], [objects(), objects((A, 0))]
    )
    assert scores['ap'] == pytest.approx(0.5)
    # The other way around it costs nothing, for all is found before.
    scores = metrics.mean_average_precision(
        [detections((A, 0.7, 0)), detections((A, 0.8, 0))], [objects(), objects((A, 0))]
    )
    assert scores['ap'] == pytest.approx(1)


def test_a_duplicate_is_wrong():
    # In the order of the scores right, duplicate, right: precision 1 up to recall 1/2, then 2/3.
    found = detections((A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0))
    scores = metrics.mean_average_precision([found], [objects((A, 0), (B, 0))])
    assert scores['ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_crowd_is_neither_right_nor_wrong():
    found = detections((C, 0.95, 0), (C, 0.9, 0), (A, 0.8, 0))
    there = ((A, 0), (C, 0))
    scores = metrics.mean_average_precision([found], [objects(*there, crowd=(False, True))])
    assert scores['ap'] == pytest.approx(1)
    # As an object, C is found first, its duplicate comes between.
    scores = metrics.mean_average_precision([found], [objects(*there, crowd=(False, False))])
    assert scores['ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_mean_is_over_the_classes_that_occur():
    # Class 0 is found, class 1 is not; the detection of class 5, which does not occur, does not count.
    found = [detections((A, 0.9, 0), (C, 0.9, 5))]
    there = [objects((A, 0), (B, 1))]
    assert metrics.mean_average_precision(found, there)['ap'] == pytest.approx(0.5)


def test_without_classes():
    found, there = [detections((A, 0.9, 4), (B, 0.8, 0))], [objects((A, 0), (B, 1))]
    assert metrics.mean_average_precision(found, there)['ap'] == 0
    assert metrics.mean_average_precision(found, there, class_agnostic=True)['ap'] == pytest.approx(1)


def test_sizes_are_in_pixels():
    small, medium, large = [0, 0, 0.05, 0.1], [0.2, 0.2, 0.4, 0.3], [0.5, 0.5, 0.9, 1.0]
    found, there = [detections((small, 0.9, 0), (large, 0.9, 0))], [objects((small, 0), (medium, 0), (large, 0))]
    # 20 x 20, 80 x 20 and 160 x 100 pixels.
    scores = metrics.mean_average_precision(found, there, size=(400, 200))
    assert {name: scores[name] for name in ('ap_small', 'ap_medium', 'ap_large')} == pytest.approx(
        {'ap_small': 1, 'ap_medium': 0, 'ap_large': 1}
    )
    assert 'ap_large' not in metrics.mean_average_precision(found, there, size=(40, 20))


def test_nothing_is_printed(capsys):
    metrics.mean_average_precision([detections()], [objects((A, 0))])
    assert capsys.readouterr().out == ''


def test_both_are_needed_for_each_picture():
    with pytest.raises(ValueError, match='got detections of 1 and targets of 2'):
        metrics.mean_average_precision([detections()], [objects(), objects()])


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the package pycocotools; install it with pip install 'mmtl_jax\[vision\]'"
    ):
        metrics.mean_average_precision([], [])
