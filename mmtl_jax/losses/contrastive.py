"""Losses that compare modalities over the batch, per example.

Rows of one group belong together: each is a positive of the others, never a negative. Row i takes part in a pair of
modalities (a, b) if it has both. It then asks in both directions, a -> b and b -> a, and its candidates are all rows
that have the modality asked for. A row's loss is the mean over its pairs and directions, 0 if it has none; a row that
lacks a modality, or whose group is negative (unlabelled), is nobody's candidate there.
"""

from collections.abc import Callable, Mapping
from itertools import permutations

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array

Predictions = Mapping[str, Array | Mapping[str, Array]]


def clip(predictions: Predictions, group: Array) -> Array:
    r"""Returns the CLIP loss (Radford et al., 2103.00020) with several positives, `[B]`.

    With s_ij the scaled cosine, P_i the positives of row i (itself included) and N_i its negatives,

        loss_i = mean over p in P_i of -log(exp s_ip / (exp s_ip + sum over n in N_i of exp s_in)).

    Positives do not compete with each other, so the loss can reach 0. Where every group has one row, this is the
    original.

    Args:
      predictions: what `heads.Contrastive` gives: `embeddings`, `valid`, `scale`.
      group: `[B]` int; rows of one group belong together, a negative one stands for no group.
    """

    def direction(logits: Array, positive: Array, negative: Array) -> Array:
        # A finite stand-in for minus infinity keeps the gradient of an empty set of negatives free of NaN.
        rivals = jax.nn.logsumexp(jnp.where(negative, logits, -1e30), axis=-1, keepdims=True)
        losses = jnp.where(positive, jax.nn.softplus(rivals - logits), 0.0)
        return jnp.sum(losses, axis=-1) / jnp.maximum(jnp.sum(positive, axis=-1), 1)

    return _over_directions(direction, predictions, group)


def siglip(predictions: Predictions, group: Array) -> Array:
    r"""Returns the SigLIP loss (Zhai et al., 2303.15343) with several positives, `[B]`.

    With s_ij the scaled cosine plus bias, and z_ij = 1 for a positive and -1 for a negative,

        loss_i = - sum over j of log sigmoid(z_ij s_ij).

    Where every row has both modalities and every group has one row, the mean over the batch is the original.

    Args:
      predictions: what `heads.Contrastive` gives with `init_bias`: `embeddings`, `valid`, `scale`, `bias`.
      group: `[B]` int; rows of one group belong together, a negative one stands for no group.

    Raises:
      ValueError: the predictions have no bias.
    """
    if 'bias' not in predictions:
        raise ValueError("siglip needs a 'bias' in the predictions; give heads.Contrastive an init_bias, such as -10.")

    def direction(logits: Array, positive: Array, negative: Array) -> Array:
        losses = jax.nn.softplus(jnp.where(positive, -logits, logits))
        return jnp.sum(jnp.where(positive | negative, losses, 0.0), axis=-1)

    return _over_directions(direction, predictions, group, predictions['bias'])


def _over_directions(
    direction: Callable[[Array, Array, Array], Array], predictions: Predictions, group: Array, bias: Array | float = 0.0
) -> Array:
    """Returns the mean of `direction(logits, positive, negative)` over the directions in which a row takes part."""
    total, count = jnp.zeros(group.shape, jnp.float32), jnp.zeros(group.shape, jnp.float32)
    same = group[:, None] == group[None, :]
    for asking, asked in permutations(predictions['embeddings'], 2):
        queries, candidates = (_clean(predictions, modality) for modality in (asking, asked))
        taking_part = predictions['valid'][asking] & predictions['valid'][asked] & (group >= 0)
        candidate = (predictions['valid'][asked] & (group >= 0))[None, :]
        logits = predictions['scale'] * queries @ candidates.T + bias
        losses = direction(logits, same & candidate, ~same & candidate)
        total += jnp.where(taking_part, losses, 0.0)
        count += taking_part
    return total / jnp.maximum(count, 1.0)


def _clean(predictions: Predictions, modality: str) -> Array:
    """Returns the embeddings with zeros in the rows that lack the modality."""
    return jnp.where(predictions['valid'][modality][:, None], predictions['embeddings'][modality], 0).astype(
        jnp.float32
    )
