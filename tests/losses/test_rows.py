"""Losses of classes, labels and numbers against numpy, and rows without a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import losses
from mmtl_jax.core.types import Ragged

LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([2, 0, 1, 1])
VALUES = np.array([[0.5, -3.0], [1.0, 1.0]], np.float32)
TARGETS = np.array([[0.0, 0.0], [1.0, 3.0]], np.float32)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_cross_entropy(smoothing):
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(axis=-1, keepdims=True))
    targets = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    rows = losses.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    np.testing.assert_allclose(rows, -(targets * log_probs).sum(axis=-1), rtol=1e-5)


@pytest.mark.parametrize('dtype', [bool, np.float32, np.int32])
def test_binary_cross_entropy(dtype):
    targets = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).astype(dtype)
    probabilities = 1 / (1 + np.exp(-LOGITS))
    expected = -np.where(targets, np.log(probabilities), np.log(1 - probabilities)).mean(axis=-1)
    np.testing.assert_allclose(losses.binary_cross_entropy(LOGITS, jnp.asarray(targets)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('loss', 'expected'),
    [
        (losses.squared_error, [(0.25 + 9) / 2, (0 + 4) / 2]),
        (losses.absolute_error, [(0.5 + 3) / 2, (0 + 2) / 2]),
        (losses.huber, [(0.125 + 2.5) / 2, (0 + 1.5) / 2]),
    ],
)
def test_regression_by_hand(loss, expected):
    np.testing.assert_allclose(loss(VALUES, TARGETS), expected, rtol=1e-6)


def test_huber_turns_linear_at_delta():
    np.testing.assert_allclose(losses.huber(VALUES, TARGETS, delta=2.0), [(0.125 + 4) / 2, (0 + 2) / 2], rtol=1e-6)


def test_unlabelled_rows_become_neutral():
    labelled = jnp.array([True, False])
    targets = {
        'label': jnp.array([3, 7]),
        'numbers': jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]]),
        'flags': jnp.array([[True], [True]]),
        'text': Ragged(jnp.array([[1, 2], [3, 4]]), jnp.array([[True, False], [True, True]])),
    }
    hidden = losses.hide_unlabelled(targets, labelled)
    np.testing.assert_array_equal(hidden['label'], [3, -1])
    np.testing.assert_array_equal(hidden['numbers'], [[1, 2], [0, 0]])
    np.testing.assert_array_equal(hidden['flags'], [[True], [False]])
    np.testing.assert_array_equal(hidden['text'].values, [[1, 2], [-1, -1]])
    np.testing.assert_array_equal(hidden['text'].mask, [[True, False], [False, False]])
    for before, after in zip(jax.tree.leaves(targets), jax.tree.leaves(hidden), strict=True):
        assert before.dtype == after.dtype
