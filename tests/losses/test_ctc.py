"""The CTC loss, against all alignments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.core.types import Ragged
from mmtl_jax.losses import ctc, feasible
from tests.ctc_brute_force import labelling_probabilities, random_log_probs

FRAMES, VOCAB = 5, 4
# Labels and number of frames; the last three have too few frames, the one before needs none.
CASES = [
    ((1,), 5),
    ((1, 2, 3), 5),
    ((2, 2), 4),
    ((1, 1, 1), 5),
    ((), 3),
    ((), 0),
    ((3, 3), 2),
    ((1, 2, 1), 2),
    ((1,), 0),
]
POSSIBLE = np.array([True] * 6 + [False] * 3)


def batch(fill: float = 0.0, fill_id: int = 0):
    """Returns logits, mask and labels of all cases; masked frames hold `fill`, masked ids `fill_id`."""
    logits = np.stack([random_log_probs(row, FRAMES, VOCAB) for row in range(len(CASES))])
    mask = np.arange(FRAMES)[None, :] < np.array([frames for _, frames in CASES])[:, None]
    ids = np.full((len(CASES), 3), fill_id, np.int32)
    for row, (labels, _) in enumerate(CASES):
        ids[row, : len(labels)] = labels
    real = np.arange(3)[None, :] < np.array([len(labels) for labels, _ in CASES])[:, None]
    logits = np.where(mask[..., None], logits, fill)
    return jnp.asarray(logits, jnp.float32), jnp.asarray(mask), Ragged(jnp.asarray(ids), jnp.asarray(real))


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def step(logits, mask, labels):
    """Returns the gradient of the sum, and the losses."""
    losses = ctc(logits, mask, labels, per='sequence')
    return jnp.sum(losses), losses


def test_equals_the_sum_over_all_alignments():
    _, losses = step(*batch())
    for row, (labels, frames) in enumerate(CASES):
        log_probs = random_log_probs(row, FRAMES, VOCAB)[:frames]
        expected = -np.log(labelling_probabilities(log_probs)[labels]) if POSSIBLE[row] else 0.0
        # float32 sums in log space over up to 4^5 paths.
        np.testing.assert_allclose(losses[row], expected, rtol=1e-5, atol=1e-5)


def test_per_symbol_divides_by_the_number_of_labels():
    lengths = np.maximum([len(labels) for labels, _ in CASES], 1)
    np.testing.assert_allclose(jax.jit(ctc)(*batch()), step(*batch())[1] / lengths, rtol=1e-6)


def test_rows_that_no_alignment_fits_have_no_loss_and_no_gradient():
    np.testing.assert_array_equal(jax.jit(feasible)(*batch()[1:]), POSSIBLE)
    gradient, _ = step(*batch())
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(np.any(gradient, axis=(1, 2)), POSSIBLE & (np.array([n for _, n in CASES]) > 0))


def test_gradient_equals_that_of_the_enumeration():
    logits, mask, labels = batch()
    gradient, (row, difference) = step(logits, mask, labels)[0], (2, 1e-3)
    frames = CASES[row][1]
    for frame, symbol in [(0, 0), (1, 2), (3, 1)]:
        values = []
        for sign in (1, -1):
            moved = np.asarray(logits[row, :frames], np.float64).copy()
            moved[frame, symbol] += sign * difference
            moved -= np.log(np.exp(moved).sum(axis=-1, keepdims=True))
            values.append(-np.log(labelling_probabilities(moved)[CASES[row][0]]))
        # Central differences are exact to the square of the step.
        np.testing.assert_allclose(gradient[row, frame, symbol], (values[0] - values[1]) / 2e-3, atol=1e-5)


@pytest.mark.parametrize('fill_id', [-1, 2, 99])
def test_masked_positions_change_nothing_to_the_bit(fill_id):
    clean, dirty = step(*batch()), step(*batch(fill=jnp.nan, fill_id=fill_id))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="per must be 'symbol' or 'sequence', got 'word'"):
        ctc(*batch(), per='word')
