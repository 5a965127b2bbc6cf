"""Metrics of a batch, against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mmtl_jax import metrics

ROWS = 40
generator = np.random.default_rng(0)
WEIGHTS = (generator.random(ROWS) < 0.7).astype(np.float32)
COUNTS = WEIGHTS > 0
LOGITS = generator.normal(size=(ROWS, 5)).astype(np.float32)
LABELS = generator.integers(0, 5, ROWS)
FLAGS = generator.random((ROWS, 5)) < 0.4
NUMBERS = generator.normal(size=(ROWS, 5)).astype(np.float32)


def means(pairs) -> dict[str, float]:
    return {name: float(total / count) for name, (total, count) in pairs.items()}


def test_classification():
    expected = {
        'accuracy': sklearn_metrics.accuracy_score(LABELS[COUNTS], LOGITS[COUNTS].argmax(-1)),
        'top2': sklearn_metrics.top_k_accuracy_score(LABELS[COUNTS], LOGITS[COUNTS], k=2),
    }
    got = means(metrics.classification(LOGITS, LABELS, WEIGHTS, top_k=2))
    assert got == pytest.approx(expected)


def test_multilabel():
    on = LOGITS[COUNTS] > 0
    got = means(metrics.multilabel(LOGITS, FLAGS, WEIGHTS))
    np.testing.assert_allclose(got['accuracy'], 1 - sklearn_metrics.hamming_loss(FLAGS[COUNTS], on), rtol=1e-6)
    np.testing.assert_allclose(got['exact_match'], sklearn_metrics.accuracy_score(FLAGS[COUNTS], on), rtol=1e-6)


def test_regression():
    got = means(metrics.regression(LOGITS, NUMBERS, WEIGHTS))
    expected = sklearn_metrics.mean_absolute_error(NUMBERS[COUNTS], LOGITS[COUNTS])
    np.testing.assert_allclose(got['mae'], expected, rtol=1e-5)
    expected = sklearn_metrics.mean_squared_error(NUMBERS[COUNTS], LOGITS[COUNTS])
    np.testing.assert_allclose(got['mse'], expected, rtol=1e-5)


def test_sums_over_batches_are_the_sum_over_all():
    whole = metrics.regression(LOGITS, NUMBERS, WEIGHTS)
    parts = [metrics.regression(LOGITS[s], NUMBERS[s], WEIGHTS[s]) for s in (slice(0, 25), slice(25, None))]
    added = jax.tree.map(lambda *values: sum(values), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), added, whole)


def test_rows_without_weight_change_nothing_to_the_bit():
    def everything(logits, labels, flags, numbers, weights):
        return (
            metrics.classification(logits, labels, weights, top_k=2),
            metrics.multilabel(logits, flags, weights),
            metrics.regression(logits, numbers, weights),
        )

    clean = everything(LOGITS, LABELS, FLAGS.astype(np.float32), NUMBERS, WEIGHTS)
    rows = COUNTS[:, None]
    dirty = everything(
        np.where(rows, LOGITS, np.nan),
        np.where(COUNTS, LABELS, -1),
        np.where(rows, FLAGS, np.nan),
        np.where(rows, NUMBERS, np.inf),
        WEIGHTS,
    )
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_no_row_counts():
    total, count = metrics.weighted(jnp.full(3, jnp.nan), jnp.zeros(3))
    assert (total, count) == (0, 0)
