"""The direction of every metric, and Delta m against numbers that others published."""

import numpy as np
import pytest

from mmtl_jax import metrics
from mmtl_jax.metrics import delta_m, higher_is_better

LABELS = np.array([0, 1, 2, 1])
MAPS = np.random.default_rng(0).uniform(1, 2, (2, 4, 4, 3))
UP = np.broadcast_to([0.0, 0.0, 1.0], (4, 4, 3))
POINTS = np.array([[0.2, 0.3, 2.0], [0.6, 0.4, 2.0]])
# Metric -> its values for answers that are right, and for ones that are not.
RIGHT_AND_WRONG = {
    'calibration': [metrics.calibration(LABELS, p) for p in (np.eye(3)[LABELS], np.eye(3)[LABELS - 1])],
    'f1': [metrics.f1(LABELS, guess) for guess in (LABELS, (LABELS + 1) % 3)],
    'ranking': [metrics.ranking(np.eye(3)[LABELS], scores) for scores in (np.eye(3)[LABELS], -np.eye(3)[LABELS])],
    'r2': [metrics.r2(MAPS.ravel(), guess.ravel()) for guess in (MAPS, MAPS[::-1])],
    'error_rates': [metrics.error_rates(['a cat'], [guess]) for guess in ('a cat', 'two dogs')],
    'segmentation': [metrics.segmentation(confusion) for confusion in (np.diag([3, 5]), np.array([[1, 2], [3, 2]]))],
    'depth': [metrics.depth(MAPS[..., 0], guess) for guess in (MAPS[..., 0], 3 * MAPS[..., 0])],
    'normals': [metrics.normals([UP], [guess]) for guess in (UP, UP[..., ::-1])],
    'dense_errors': [metrics.dense_errors(MAPS, guess) for guess in (MAPS, MAPS + 1)],
    'keypoints': [metrics.keypoints([POINTS], [POINTS[:, :2] + shift]) for shift in (0, 0.5)],
    'retrieval': [
        metrics.retrieval(
            {'image': vectors, 'text': np.eye(12)}, dict.fromkeys(('image', 'text'), np.ones(12, bool)), np.arange(12)
        )
        for vectors in (np.eye(12), -np.eye(12))
    ],
}

# NYUv2, single tasks and Nash-MTL: table 3 of 2202.01017, where Delta_m is -4.04 from values with more digits.
NYUV2 = {
    'segmentation/iou': (0.3830, 0.4013, True),
    'segmentation/accuracy': (0.6376, 0.6593, True),
    'depth/absolute': (0.6754, 0.5261, False),
    'depth/relative': (0.2780, 0.2171, False),
    'normals/mean': (25.01, 25.26, False),
    'normals/median': (19.21, 20.08, False),
    'normals/within_11': (0.3014, 0.2840, True),
    'normals/within_22': (0.5720, 0.5547, True),
    'normals/within_30': (0.6915, 0.6815, True),
}

# Cityscapes, mIoU and pixel accuracy, absolute and relative error of the depth: single tasks, then methods with their
# Delta_m; as collected in figs/Cityscapes.png of github.com/OptMN-Lab/LDC-MTL.
CITYSCAPES = {
    'segmentation/miou': True,
    'segmentation/pixel_accuracy': True,
    'depth/abs_error': False,
    'depth/rel_error': False,
}
CITYSCAPES_SINGLE = (74.01, 93.16, 0.0125, 27.77)
CITYSCAPES_METHODS = {
    'linear scalarisation': ((75.18, 93.49, 0.0155, 46.77), 22.60),
    'scale-invariant': ((70.95, 91.73, 0.0161, 33.83), 14.11),
    'random weights': ((74.57, 93.41, 0.0158, 47.79), 24.38),
    'DWA': ((75.24, 93.52, 0.0160, 44.37), 21.45),
    'uncertainty': ((72.02, 92.85, 0.0140, 30.13), 5.89),
    'MGDA': ((68.84, 91.54, 0.0309, 33.50), 44.14),
    'PCGrad': ((75.13, 93.48, 0.0154, 42.07), 18.29),
    'GradDrop': ((75.27, 93.53, 0.0157, 47.54), 23.73),
    'CAGrad': ((75.16, 93.48, 0.0141, 37.60), 11.64),
    'IMTL-G': ((75.33, 93.49, 0.0135, 38.41), 11.10),
    'MoCo': ((75.42, 93.55, 0.0149, 34.19), 9.90),
    'Nash-MTL': ((75.41, 93.66, 0.0129, 35.02), 6.82),
    'FAMO': ((74.54, 93.29, 0.0145, 32.59), 8.13),
    'FairGrad': ((75.72, 93.68, 0.0134, 32.25), 5.18),
}


@pytest.mark.parametrize('metric', RIGHT_AND_WRONG)
def test_the_direction_of_every_metric(metric):
    right, wrong = RIGHT_AND_WRONG[metric]
    assert right
    assert right.keys() == wrong.keys()
    for name in right:
        if not name.endswith('_chance'):
            assert (right[name] > wrong[name]) is higher_is_better(name), name
            assert right[name] != wrong[name], name


def test_losses_go_down():
    assert not higher_is_better('loss')


def columns(rows):
    return [{key: row[column] for key, row in rows.items()} for column in (1, 0, 2)]


def test_published_numbers_of_nash_mtl():
    assert delta_m(*columns(NYUV2)) == pytest.approx(-4.04, abs=0.02)


@pytest.mark.parametrize('method', CITYSCAPES_METHODS)
def test_published_rows_of_cityscapes(method):
    numbers, published = CITYSCAPES_METHODS[method]
    values, single = (dict(zip(CITYSCAPES, row, strict=True)) for row in (numbers, CITYSCAPES_SINGLE))
    # Half a unit of the last digit of an absolute error is 0.4 % of it, 0.1 % in the mean of four, of method and base.
    assert delta_m(values, single, CITYSCAPES) == pytest.approx(published, abs=0.2)
    # With two metrics for either task, their mean over the tasks is that over all.
    assert delta_m(values, single, CITYSCAPES, convention='libmtl') == pytest.approx(-published, abs=0.2)


def test_the_example_in_libmtls_documentation():
    # ((-3/96 - 1/98) / 2 + 0.3/0.2) / 2: the mean of each task first.
    rows = {'a/0': (96, 93, True), 'a/1': (98, 99, False), 'b/0': (0.2, 0.5, True)}
    assert delta_m(*columns(rows), convention='libmtl') == pytest.approx(73.96365, abs=1e-4)
    assert delta_m(*columns(rows)) == pytest.approx(100 * (3 / 96 + 1 / 98 - 1.5) / 3)


def test_with_one_metric_a_task_the_conventions_differ_in_the_sign_alone():
    values, single, higher = {'a/x': 0.9, 'b/y': 3.0, 'b/z': 7}, {'a/x': 1.0, 'b/y': 2.0}, {'a/x': True, 'b/y': False}
    assert delta_m(values, single, higher) == pytest.approx(30.0)
    assert delta_m(values, single, higher, convention='libmtl') == pytest.approx(-30.0)
    assert delta_m(single, single, higher) == 0.0


@pytest.mark.parametrize(
    ('values', 'baselines', 'options', 'message'),
    [
        ({}, {'a/x': 1.0}, {}, r"values lack 'a/x'; they have \[\]"),
        ({'a/x': 1.0}, {'b/x': 1.0}, {}, r"baselines lack 'a/x'; they have \['b/x'\]"),
        ({'a/x': 1.0}, {'a/x': 0.0}, {}, "the baseline of 'a/x' is 0.0; it must be above 0 for a percentage"),
        ({'a/x': 1.0}, {'a/x': 1.0}, {'convention': 'percent'}, "must be one of .*, got 'percent'"),
    ],
)
def test_what_has_no_delta(values, baselines, options, message):
    with pytest.raises(ValueError, match=message):
        delta_m(values, baselines, {'a/x': True}, **options)
    with pytest.raises(ValueError, match='at least one metric'):
        delta_m({}, {}, {})
