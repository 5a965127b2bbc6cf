"""Scores of a whole split, against scikit-learn and jiwer."""

import jiwer
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mmtl_jax import metrics

generator = np.random.default_rng(0)
TRUTH, GUESS = generator.integers(0, 4, 30), generator.integers(0, 4, 30)
FLAGS, PROBABILITIES = (generator.random((30, 3)) < 0.4).astype(int), generator.random((30, 3))


def test_f1_of_classes_and_labels():
    for truth, guess in [(TRUTH, GUESS), (FLAGS, (PROBABILITIES > 0.5).astype(int))]:
        scores = metrics.f1(truth, guess)
        for average in ('macro', 'micro'):
            expected = sklearn_metrics.f1_score(truth, guess, average=average)
            assert scores[f'{average}_f1'] == pytest.approx(expected)


def test_f1_by_hand():
    # Class 0: precision 1, recall 1/2; class 1: precision 2/3, recall 1.
    scores = metrics.f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert scores['macro_f1'] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores['micro_f1'] == pytest.approx(3 / 4)


def test_confusion_matrix_has_a_row_per_class_even_if_it_never_occurs():
    matrix = metrics.confusion_matrix(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    np.testing.assert_array_equal(matrix, [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_ranking_is_the_mean_over_labels():
    scores = metrics.ranking(FLAGS, PROBABILITIES)
    assert scores['roc_auc'] == pytest.approx(sklearn_metrics.roc_auc_score(FLAGS, PROBABILITIES, average='macro'))
    expected = sklearn_metrics.average_precision_score(FLAGS, PROBABILITIES, average='macro')
    assert scores['average_precision'] == pytest.approx(expected)


def test_ranking_leaves_out_what_is_undefined():
    flags = FLAGS.copy()
    flags[:, 1], flags[:, 2] = 0, 1
    scores = metrics.ranking(flags, PROBABILITIES)
    assert scores['roc_auc'] == pytest.approx(sklearn_metrics.roc_auc_score(FLAGS[:, 0], PROBABILITIES[:, 0]))
    first = sklearn_metrics.average_precision_score(FLAGS[:, 0], PROBABILITIES[:, 0])
    assert scores['average_precision'] == pytest.approx((first + 1) / 2)
    assert metrics.ranking(np.zeros((5, 3)), PROBABILITIES[:5]) == {}


def test_r2():
    truth, values = generator.normal(size=(20, 2)), generator.normal(size=(20, 2))
    assert metrics.r2(truth, values)['r2'] == pytest.approx(sklearn_metrics.r2_score(truth, values))
    assert metrics.r2(truth, truth) == {'r2': 1.0}


def test_nothing_to_score():
    empty = np.zeros((0, 3))
    assert metrics.f1(empty, empty) == metrics.ranking(empty, empty) == metrics.r2(empty, empty) == {}
    assert metrics.error_rates([], []) == metrics.error_rates([''], ['word']) == {}


def test_error_rates_are_those_of_jiwer():
    references = ['un gros chat', 'der hund', 'ein haus am see']
    hypotheses = ['un gos chat', 'der rund', 'haus am meer']
    rates = metrics.error_rates(references, hypotheses)
    assert rates['cer'] == pytest.approx(jiwer.cer(references, hypotheses))
    assert rates['wer'] == pytest.approx(jiwer.wer(references, hypotheses))


def test_error_rates_by_hand():
    # Edits: 1 deletion; 3 substitutions; 2 insertions over an empty reference, 2 for the spaces around a right word.
    rates = metrics.error_rates(['abcd', 'xyz', '', 'ok'], ['abc', 'uvw', 'hi', ' ok '])
    assert rates['cer'] == pytest.approx((1 + 3 + 2 + 2) / (4 + 3 + 0 + 2))
    assert rates['wer'] == pytest.approx((1 + 1 + 1 + 0) / 3)
