"""Greedy and prefix beam decoding, against all alignments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.heads.ctc_decoding import greedy_decode, prefix_beam_search
from tests.ctc_brute_force import collapse, labelling_probabilities, random_log_probs

FRAMES, VOCAB = 5, 3
LENGTHS = (5, 4, 3, 1, 0, 5, 5, 5)
# More prefixes than there are: 1 + 2 + 4 + 8 + 16 + 32.
EVERYTHING = 64


def batch(fill: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Returns logits and a right-padded mask, one random distribution per row; masked frames hold `fill`."""
    log_probs = np.stack([random_log_probs(row, FRAMES, VOCAB) for row in range(len(LENGTHS))])
    mask = np.arange(FRAMES)[None, :] < np.array(LENGTHS)[:, None]
    return jnp.asarray(np.where(mask[..., None], log_probs, fill), jnp.float32), jnp.asarray(mask)


def symbols(row) -> tuple[int, ...]:
    """Returns a decoder's row without its padding, which must stand at the end."""
    row = np.asarray(row)
    real = row[row >= 0]
    np.testing.assert_array_equal(row, np.concatenate([real, np.full(len(row) - len(real), -1)]))
    return tuple(int(symbol) for symbol in real)


search = jax.jit(prefix_beam_search, static_argnames='beam_width')
greedy = jax.jit(greedy_decode)


def test_greedy_collapses_the_best_path():
    logits, mask = batch()
    decoded = greedy(logits, mask)
    assert decoded.shape == mask.shape
    assert decoded.dtype == jnp.int32
    for row, length in enumerate(LENGTHS):
        best = tuple(int(symbol) for symbol in np.argmax(logits[row, :length], axis=-1))
        assert symbols(decoded[row]) == collapse(best)


def test_greedy_by_hand():
    path = jnp.array([[1, 1, 0, 1, 2], [0, 2, 2, 2, 0], [0, 0, 0, 0, 0]])
    decoded = greedy(jax.nn.one_hot(path, 3), jnp.ones((3, 5), bool))
    np.testing.assert_array_equal(decoded, [[1, 1, 2, -1, -1], [2, -1, -1, -1, -1], [-1, -1, -1, -1, -1]])


def test_wide_beam_finds_the_most_probable_labelling_and_its_probability():
    logits, mask = batch()
    decoded, log_probability = search(logits, mask, beam_width=EVERYTHING)
    for row, length in enumerate(LENGTHS):
        probabilities = labelling_probabilities(np.asarray(logits[row, :length], np.float64))
        best = max(probabilities, key=probabilities.get)
        assert symbols(decoded[row]) == best
        # float32 sums in log space over up to 3^5 paths.
        np.testing.assert_allclose(log_probability[row], np.log(probabilities[best]), rtol=1e-5, atol=1e-5)


def test_beam_beats_greedy_where_many_paths_share_a_labelling():
    # The best symbol of each frame is the blank, yet the symbol has more probability in all: .64 to .36.
    logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
    mask = jnp.ones((1, 2), bool)
    assert symbols(greedy(logits, mask)[0]) == ()
    decoded, log_probability = search(logits, mask, beam_width=2)
    assert symbols(decoded[0]) == (1,)
    np.testing.assert_allclose(np.exp(log_probability), [0.64], rtol=1e-6)


@pytest.mark.parametrize('beam_width', [1, 3])
def test_narrow_beam_never_claims_more_than_the_truth(beam_width):
    logits, mask = batch()
    decoded, log_probability = search(logits, mask, beam_width=beam_width)
    for row, length in enumerate(LENGTHS):
        probabilities = labelling_probabilities(np.asarray(logits[row, :length], np.float64))
        assert np.exp(log_probability[row]) <= probabilities[symbols(decoded[row])] + 1e-6


@pytest.mark.parametrize('decode', [greedy, lambda *args: search(*args, beam_width=2)[0]], ids=['greedy', 'beam'])
def test_masked_frames_are_skipped_wherever_they_stand(decode):
    logits, mask = batch()
    np.testing.assert_array_equal(decode(logits, mask), decode(*batch(fill=jnp.nan)))
    # Every second frame of twice as many is masked, and what it holds would break up runs.
    spread = jnp.full((len(LENGTHS), 2 * FRAMES, VOCAB), jnp.nan).at[:, 1::2].set(logits)
    spread_mask = jnp.zeros((len(LENGTHS), 2 * FRAMES), bool).at[:, 1::2].set(mask)
    np.testing.assert_array_equal(decode(spread, spread_mask)[:, :FRAMES], decode(logits, mask))


def test_beam_width_must_be_positive():
    with pytest.raises(ValueError, match='beam_width must be at least 1, got 0'):
        prefix_beam_search(*batch(), beam_width=0)
