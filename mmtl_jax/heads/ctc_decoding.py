"""From CTC outputs to symbols: the best path, and prefix beam search. Both run under jit with fixed shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn import fill_masked

NOTHING = -1
BLANK = 0


def greedy_decode(logits: Array, mask: Array) -> Array:
    """Returns the labelling of the most probable path: best symbol per frame, repeats collapsed, blanks removed.

    Args:
      logits: `[B, T, V]`, normalised or not; id 0 is the blank.
      mask: `[B, T]`, True = real frame. Masked frames are skipped wherever they stand.

    Returns:
      `[B, T]` int32, the symbols from the left, then -1.
    """
    order = jnp.argsort(~mask, axis=-1, stable=True)
    best = jnp.take_along_axis(jnp.argmax(logits, axis=-1), order, axis=-1)
    real = jnp.take_along_axis(mask, order, axis=-1)
    before = jnp.pad(best, ((0, 0), (1, 0)), constant_values=BLANK)[:, :-1]
    keep = real & (best != before) & (best != BLANK)
    packed = jnp.argsort(~keep, axis=-1, stable=True)
    symbols = jnp.where(keep, best, NOTHING).astype(jnp.int32)
    return jnp.take_along_axis(symbols, packed, axis=-1)


class Beam(NamedTuple):
    """The W most probable prefixes of one row; all different, as far as their probability is not zero.

    Attributes:
      prefixes: `[W, T]` int32, padded with -1.
      lengths: `[W]` int32.
      ends_in_blank: `[W]`, log-probability of all paths for the prefix that end in a blank.
      ends_in_symbol: `[W]`, the same of all paths that end in the prefix's last symbol.
    """

    prefixes: Array
    lengths: Array
    ends_in_blank: Array
    ends_in_symbol: Array


def prefix_beam_search(logits: Array, mask: Array, *, beam_width: int = 8) -> tuple[Array, Array]:
    """Returns the most probable labelling that a beam search over prefixes finds, and its log-probability.

    A prefix sums over all its paths (Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", section
    7.5; Hannun et al., 1408.2873, algorithm 1, here without language model). Paths that reach one prefix from two
    beams are merged exactly, in log space. With a beam as wide as there are prefixes the result is exact; a narrower
    one gives a lower bound of the log-probability.

    Args:
      logits: `[B, T, V]`, normalised or not; id 0 is the blank.
      mask: `[B, T]`, True = real frame. Masked frames are skipped wherever they stand.
      beam_width: number of prefixes kept after each frame.

    Returns:
      symbols `[B, T]` int32, padded with -1, and log-probabilities `[B]`.

    Raises:
      ValueError: `beam_width` below 1.
    """
    if beam_width < 1:
        raise ValueError(f'beam_width must be at least 1, got {beam_width}.')
    logits = fill_masked(logits, mask).astype(jnp.float32)
    return jax.vmap(lambda row, real: _search_row(row, real, beam_width))(jax.nn.log_softmax(logits), mask)


def _search_row(log_probs: Array, mask: Array, beam_width: int) -> tuple[Array, Array]:
    frames = log_probs.shape[0]
    impossible = jnp.full((beam_width,), -jnp.inf)
    beam = Beam(
        prefixes=jnp.full((beam_width, frames), NOTHING, jnp.int32),
        lengths=jnp.zeros((beam_width,), jnp.int32),
        ends_in_blank=impossible.at[0].set(0.0),
        ends_in_symbol=impossible,
    )

    def step(beam: Beam, frame: tuple[Array, Array]) -> tuple[Beam, None]:
        scores, real = frame
        return jax.tree.map(lambda new, old: jnp.where(real, new, old), _advance(beam, scores), beam), None

    beam, _ = jax.lax.scan(step, beam, (log_probs, mask))
    total = jnp.logaddexp(beam.ends_in_blank, beam.ends_in_symbol)
    best = jnp.argmax(total)
    return beam.prefixes[best], total[best]


def _advance(beam: Beam, scores: Array) -> Beam:
    """Returns the beam after one frame with log-probabilities `scores [V]`."""
    width, vocab_size = beam.lengths.shape[0], scores.shape[0]
    rows = jnp.arange(width)
    total = jnp.logaddexp(beam.ends_in_blank, beam.ends_in_symbol)
    last = jnp.where(beam.lengths > 0, beam.prefixes[rows, jnp.maximum(beam.lengths - 1, 0)], BLANK)

    # A repeat of the last symbol starts a new one only after a blank; else it stays within the old one.
    symbols = jnp.arange(vocab_size)[None, :]
    extended = jnp.where(symbols == last[:, None], beam.ends_in_blank[:, None], total[:, None]) + scores[None, :]
    extended = extended.at[:, BLANK].set(-jnp.inf)
    stay_blank = total + scores[BLANK]
    stay_symbol = jnp.where(beam.lengths > 0, beam.ends_in_symbol + scores[last], -jnp.inf)

    # A prefix that is also another one's extension takes over its probability, so that each prefix stands once.
    parent, has_parent = _parents(beam, total)
    merged = jnp.where(has_parent, extended[parent, last], -jnp.inf)
    stay_symbol = jnp.logaddexp(stay_symbol, merged)
    extended = extended.at[jnp.where(has_parent, parent, width), last].set(-jnp.inf, mode='drop')

    candidates = jnp.concatenate([jnp.logaddexp(stay_blank, stay_symbol), extended.reshape(-1)])
    scores_kept, kept = jax.lax.top_k(candidates, width)
    stays = kept < width
    source = jnp.where(stays, kept, (kept - width) // vocab_size)
    symbol = (kept - width) % vocab_size
    frames = jnp.arange(beam.prefixes.shape[1])[None, :]
    appended = ~stays[:, None] & (frames == beam.lengths[source][:, None])
    return Beam(
        prefixes=jnp.where(appended, symbol[:, None], beam.prefixes[source]).astype(jnp.int32),
        lengths=beam.lengths[source] + jnp.where(stays, 0, 1),
        ends_in_blank=jnp.where(stays, stay_blank[source], -jnp.inf),
        ends_in_symbol=jnp.where(stays, stay_symbol[source], scores_kept),
    )


def _parents(beam: Beam, total: Array) -> tuple[Array, Array]:
    """Returns for each prefix which other one of the beam it extends by one symbol, and whether there is one."""
    frames = jnp.arange(beam.prefixes.shape[1])[None, :]
    without_last = jnp.where(frames < beam.lengths[:, None] - 1, beam.prefixes, NOTHING)
    extends = jnp.all(without_last[:, None, :] == beam.prefixes[None, :, :], axis=-1)
    extends &= (beam.lengths[:, None] > 0) & (beam.lengths[:, None] - 1 == beam.lengths[None, :])
    extends &= jnp.isfinite(total)[:, None] & jnp.isfinite(total)[None, :]
    return jnp.argmax(extends, axis=-1), jnp.any(extends, axis=-1)
