"""Losses of classes and labels, per example."""

import jax
import jax.numpy as jnp
import optax

from mmtl_jax.core.types import Array


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Returns the softmax cross-entropy with smoothed labels (Szegedy et al., 1512.00567), `[B, C]`, `[B]` -> `[B]`.

    A row's target is `1 - label_smoothing` on its label plus `label_smoothing / C` on every class.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Returns the sigmoid cross-entropy, averaged over the labels: `[B, K]`, `[B, K]` of 0 and 1 -> `[B]`."""
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets.astype(jnp.float32))
    return jnp.mean(losses, axis=-1)
