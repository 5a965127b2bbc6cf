"""Losses of pixels and of points: against formulas, numpy and optax, and what is ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import losses
from mmtl_jax.core.tree import all_finite

generator = np.random.default_rng(0)
LOGITS = generator.normal(size=(3, 4, 5, 3)).astype(np.float32)
LABELS = generator.integers(0, 3, (3, 4, 5)).astype(np.int32)
# In row 0 all count, in row 1 some, in row 2 none.
IGNORED = np.stack([np.zeros((4, 5), bool), generator.random((4, 5)) < 0.5, np.ones((4, 5), bool)])
MARKED = np.where(IGNORED, np.where(generator.random(IGNORED.shape) < 0.5, -1, 255), LABELS).astype(np.int32)
P = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(axis=-1, keepdims=True)
TRUE = np.eye(3)[LABELS]
S = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


def focal(alpha: float | None) -> np.ndarray:
    """Returns the focal loss of every pixel."""
    weight = np.ones_like(TRUE) if alpha is None else np.where(TRUE > 0, alpha, 1 - alpha)
    right = np.where(TRUE > 0, S, 1 - S)
    return (-weight * (1 - right) ** 2 * np.log(right)).sum(axis=-1)


@pytest.mark.parametrize(
    ('loss', 'pixels'),
    [
        (losses.pixel_cross_entropy, -np.log((P * TRUE).sum(axis=-1))),
        (losses.pixel_focal, focal(None)),
        (lambda logits, labels: losses.pixel_focal(logits, labels, alpha=0.25), focal(0.25)),
    ],
    ids=['cross_entropy', 'focal', 'focal, alpha'],
)
def test_the_mean_over_the_pixels_that_count(loss, pixels):
    expected = [pixels[row][~IGNORED[row]].mean() if row < 2 else 0 for row in range(3)]
    np.testing.assert_allclose(jax.jit(loss)(LOGITS, MARKED), expected, rtol=1e-5)


def test_dice():
    dice = jax.jit(losses.dice)
    rows = dice(LOGITS, MARKED)
    for row in range(2):
        p, t = P[row][~IGNORED[row]], TRUE[row][~IGNORED[row]]
        coefficient = ((p * t).sum(axis=0) + 1) / ((p.sum(axis=0) + t.sum(axis=0)) / 2 + 1)
        np.testing.assert_allclose(rows[row], np.mean(1 - coefficient), rtol=1e-5)
    assert rows[2] == 0
    np.testing.assert_allclose(dice(LOGITS, LABELS), jax.jit(optax.losses.dice_loss)(LOGITS, TRUE), rtol=1e-5)
    np.testing.assert_allclose(
        dice(30 * TRUE.astype(np.float32), LABELS), 0, atol=1e-6
    )  # exp(-30) of probability is left


@pytest.mark.parametrize('loss', [losses.pixel_cross_entropy, losses.pixel_focal, losses.dice])
def test_ignored_pixels_change_nothing_to_the_bit(loss):
    def step(logits):
        return jax.value_and_grad(lambda logits: jnp.sum(loss(logits, MARKED)))(logits)

    # Not NaN: the logits come from a network, and a NaN there is never only where a pixel is ignored.
    other = np.where(IGNORED[..., None], 7 * generator.normal(size=LOGITS.shape), LOGITS).astype(np.float32)
    (value, gradient), (same, gradient_too) = jax.jit(step)(LOGITS), jax.jit(step)(other)
    assert value == same
    np.testing.assert_array_equal(gradient, gradient_too)
    np.testing.assert_array_equal(np.any(gradient, axis=-1), ~IGNORED)


VALUES = generator.normal(size=(2, 3, 4, 2)).astype(np.float32)
WANTED = generator.normal(size=(2, 3, 4, 2)).astype(np.float32)
VALID = np.stack([generator.random((3, 4)) < 0.6, np.zeros((3, 4), bool)])


@pytest.mark.parametrize('kind', ['mae', 'mse', 'huber'])
def test_errors_of_the_pixels_that_count(kind):
    step = jax.jit(
        jax.value_and_grad(
            lambda values, wanted: jnp.sum(losses.masked_error(values, wanted, VALID, kind=kind, delta=0.5))
        )
    )
    value, gradient = step(VALUES, np.where(VALID[..., None], WANTED, np.nan))
    error = np.abs(VALUES - WANTED)[0][VALID[0]]
    expected = {'mae': error, 'mse': error**2, 'huber': np.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25))}
    np.testing.assert_allclose(value, expected[kind].mean(), rtol=1e-5)
    np.testing.assert_array_equal(np.any(gradient, axis=-1), VALID)


def test_cosine_distance_of_the_pixels_that_count():
    wanted = np.where(VALID[..., None], WANTED, np.nan)
    rows = jax.jit(losses.cosine_distance)(VALUES, wanted, VALID)
    v, w = VALUES[0][VALID[0]], WANTED[0][VALID[0]]
    cosine = (v * w).sum(axis=-1) / np.linalg.norm(v, axis=-1) / np.linalg.norm(w, axis=-1)
    np.testing.assert_allclose(rows, [np.mean(1 - cosine), 0], rtol=1e-5)
    step = jax.jit(jax.grad(lambda values: jnp.sum(losses.cosine_distance(values, wanted, VALID))))
    gradient = step(np.zeros_like(VALUES))
    assert all_finite(gradient)


def test_keypoint_cross_entropy():
    logits = generator.normal(size=(3, 4, 6, 2)).astype(np.float32)
    points = np.array([[[0.3, 0.5, 2], [0.9, 0.1, 1]], [[0.5, 0.5, 2], [np.nan, 5.0, 0]], np.zeros((2, 3))], np.float32)
    rows = jax.jit(losses.keypoint_cross_entropy)(logits, points)
    y, x = np.meshgrid((np.arange(4) + 0.5), (np.arange(6) + 0.5), indexing='ij')

    def divergence(row: int, k: int) -> float:
        target = np.exp(-((y - 4 * points[row, k, 0]) ** 2 + (x - 6 * points[row, k, 1]) ** 2) / 2)
        target /= target.sum()
        guess = np.exp(logits[row, :, :, k].astype(np.float64))
        return float((target * np.log(target * guess.sum() / guess)).sum())

    expected = [(divergence(0, 0) + divergence(0, 1)) / 2, divergence(1, 0), 0]
    np.testing.assert_allclose(rows, expected, rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda logits: jnp.sum(losses.keypoint_cross_entropy(logits, points))))(logits)
    np.testing.assert_array_equal(np.any(gradient, axis=(1, 2)), [[True, True], [True, False], [False, False]])
