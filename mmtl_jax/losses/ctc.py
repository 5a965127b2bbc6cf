"""Connectionist Temporal Classification (Graves et al., ICML 2006), per example."""

import jax.numpy as jnp
import optax

from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.nn import fill_masked


def ctc(logits: Array, mask: Array, labels: Ragged, *, per: str = 'symbol') -> Array:
    """Returns minus the log-probability of the labels, summed over all alignments.

    A row that no alignment fits (see `feasible`) has loss 0 and no gradient, as with PyTorch's `zero_infinity`: it
    would teach nothing but to be infinitely wrong.

    Args:
      logits: `[B, T, V]`; id 0 is the blank.
      mask: `[B, T]`, True = real frame.
      labels: ids `[B, L]` from 1 to V - 1, real ones first.
      per: 'symbol' divides a row's loss by its number of labels, so that long texts count like short ones; 'sequence'
        leaves the sum.

    Returns:
      `[B]`, in nats.

    Raises:
      ValueError: `per` is neither.
    """
    if per not in ('symbol', 'sequence'):
        raise ValueError(f"per must be 'symbol' or 'sequence', got {per!r}.")
    possible = feasible(mask, labels)
    logits = fill_masked(logits, mask & possible[:, None]).astype(jnp.float32)
    ids = jnp.where(labels.mask, labels.values, 0)
    losses = optax.ctc_loss(logits, 1.0 - mask, ids, 1.0 - labels.mask)
    if per == 'symbol':
        losses = losses / jnp.maximum(jnp.sum(labels.mask, axis=-1), 1)
    return jnp.where(possible, losses, 0.0)


def feasible(mask: Array, labels: Ragged) -> Array:
    """Returns `[B]` bool: the row has a frame for each label and one more, a blank, between two equal neighbours."""
    repeats = (labels.values[:, 1:] == labels.values[:, :-1]) & labels.mask[:, 1:] & labels.mask[:, :-1]
    return jnp.sum(mask, axis=-1) >= jnp.sum(labels.mask, axis=-1) + jnp.sum(repeats, axis=-1)
