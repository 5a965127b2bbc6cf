"""Calibration against scikit-learn and against the definitions written out."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from mmtl_jax.metrics import calibration, reliability

ROWS, CLASSES = 400, 5


@pytest.fixture
def classes():
    random = np.random.default_rng(0)
    logits = random.normal(size=(ROWS, CLASSES)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    labels = np.array([random.choice(CLASSES, p=0.5 * row + 0.5 / CLASSES) for row in probabilities])
    return labels, probabilities


@pytest.fixture
def labels():
    random = np.random.default_rng(1)
    probabilities = random.random((ROWS, 3))
    return (random.random((ROWS, 3)) < probabilities**2).astype(np.int32), probabilities


def ece_by_hand(confidence, right, bins):
    """Returns equation 3 of 1706.04599, bin by bin."""
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_ece_is_its_definition(classes):
    targets, probabilities = classes
    expected = ece_by_hand(probabilities.max(axis=1), probabilities.argmax(axis=1) == targets, 15)
    assert calibration(targets, probabilities)['ece'] == pytest.approx(expected)
    assert expected > 0.1  # the labels are noisier than the probabilities say


def test_nll_and_brier_are_those_of_scikit_learn(classes):
    targets, probabilities = classes
    found = calibration(targets, probabilities)
    assert found['nll'] == pytest.approx(log_loss(targets, probabilities))
    by_class = [brier_score_loss(targets == c, probabilities[:, c]) for c in range(CLASSES)]
    assert found['brier'] == pytest.approx(sum(by_class))


def test_labels_are_those_of_scikit_learn(labels):
    targets, probabilities = labels
    found = calibration(targets, probabilities)
    assert found['nll'] == pytest.approx(np.mean([log_loss(targets[:, k], probabilities[:, k]) for k in range(3)]))
    assert found['brier'] == pytest.approx(brier_score_loss(targets.ravel(), probabilities.ravel()))
    assert found['ece'] == pytest.approx(ece_by_hand(probabilities.ravel(), targets.ravel(), 15))


def test_bins_are_those_of_scikit_learn(labels):
    targets, probabilities = (array.ravel() for array in labels)
    bins = reliability(*labels, num_bins=10)
    frequency, mean = calibration_curve(targets, probabilities, n_bins=10)
    assert bins.correct / bins.counts == pytest.approx(frequency)
    assert bins.confidences / bins.counts == pytest.approx(mean)


def test_parts_add_up_to_the_whole(classes):
    targets, probabilities = classes
    parts = reliability(targets[:70], probabilities[:70]) + reliability(targets[70:], probabilities[70:])
    whole = reliability(targets, probabilities)
    assert parts.counts.sum() == ROWS
    assert parts.ece == pytest.approx(whole.ece)
    np.testing.assert_array_equal(parts.counts, whole.counts)


def test_the_edges_belong_to_the_bin_below():
    counts = reliability(np.zeros((1, 4)), np.array([[0.0, 0.5, 0.500001, 1.0]]), num_bins=2).counts
    assert counts.tolist() == [2, 2]


def test_the_extremes_are_finite():
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert calibration(np.array([0, 0]), sure) == {'ece': 0.0, 'nll': 0.0, 'brier': 0.0}
    wrong = calibration(np.array([1, 1]), sure)
    assert (wrong['ece'], wrong['brier']) == (1.0, 2.0)
    assert 87 < wrong['nll'] < 88  # -log of the smallest normal float32


def test_nothing_gives_nothing():
    assert calibration(np.zeros(0, int), np.zeros((0, 3))) == {}
