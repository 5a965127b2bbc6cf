"""Losses of pixels, per picture: the mean over the pixels that have a target, 0 in pictures without any."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mmtl_jax.core.types import Array


def has_class(labels: Array, num_classes: int) -> Array:
    """Returns which pixels have one of the classes; -1, 255 and whatever else lies outside are ignored."""
    return (labels >= 0) & (labels < num_classes)


def pixel_cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns the softmax cross-entropy, `[B, H, W, C]`, `[B, H, W]` -> `[B]`."""

    def cross_entropy(logits: Array, labels: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return _over_pixels(cross_entropy, logits, labels)


def pixel_focal(logits: Array, labels: Array, *, alpha: float | None = None, gamma: float = 2.0) -> Array:
    """Returns the focal loss (Lin et al. 2017, 1708.02002, equation 5), `[B, H, W, C]`, `[B, H, W]` -> `[B]`.

    Every class is a question of its own, by a sigmoid as there; a pixel's loss is the sum over the classes.

    Args:
      logits: `[B, H, W, C]`.
      labels: `[B, H, W]`.
      alpha: weight of the class that is there, against 1 - alpha for the others; None for 1 and 1.
      gamma: how much what is answered well counts less.
    """

    def focal(logits: Array, labels: Array) -> Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        return jnp.sum(optax.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma), axis=-1)

    return _over_pixels(focal, logits, labels)


def dice(logits: Array, labels: Array, *, smooth: float = 1.0) -> Array:
    """Returns one minus the soft Dice coefficient (V-Net, Milletari et al. 2016, 1606.04797), `[B]`.

    With p the probabilities by a softmax, t the classes as 0 and 1, and s = `smooth`, the mean over the classes of

        1 - (sum p t + s) / ((sum p + sum t) / 2 + s),

    the sums over the pixels that have a class. That is `optax.dice_loss`, which cannot leave pixels out. (The paper has
    squares in the denominator and no s.)

    Args:
      logits: `[B, H, W, C]`.
      labels: `[B, H, W]`.
      smooth: added above and below, so that a class that is neither there nor predicted costs nothing.
    """
    valid = has_class(labels, logits.shape[-1])[..., None]
    predicted = jnp.where(valid, jax.nn.softmax(logits.astype(jnp.float32)), 0)
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    both, either = (jnp.sum(values, axis=(1, 2)) for values in (predicted * targets, predicted + targets))
    rows = jnp.mean(1 - (both + smooth) / (either / 2 + smooth), axis=-1)
    return jnp.where(jnp.any(valid, axis=(1, 2, 3)), rows, 0)


def masked_error(values: Array, targets: Array, valid: Array, *, kind: str = 'mae', delta: float = 1.0) -> Array:
    """Returns the mean error of numbers at the pixels that have one, `[B, H, W, C]`, the same, `[B, H, W]` -> `[B]`.

    Args:
      values: predicted.
      targets: wanted; what stands outside of `valid`, NaN included, changes nothing.
      valid: which pixels count.
      kind: 'mae', 'mse' or 'huber'.
      delta: error at which the Huber loss turns linear.
    """
    losses = {
        'mae': lambda error: jnp.abs(error),
        'mse': jnp.square,
        'huber': lambda error: optax.huber_loss(error, delta=delta),
    }
    error = values.astype(jnp.float32) - jnp.where(valid[..., None], targets, 0)
    return _mean_over(jnp.mean(losses[kind](error), axis=-1), valid)


def cosine_distance(values: Array, targets: Array, valid: Array) -> Array:
    """Returns the mean of 1 - cos of the angle between vectors, `[B, H, W, C]`, the same, `[B, H, W]` -> `[B]`.

    Args:
      values: predicted, of any length.
      targets: wanted; what stands outside of `valid`, NaN included, changes nothing.
      valid: which pixels count.
    """
    targets = jnp.where(valid[..., None], targets, 0)
    return _mean_over(optax.cosine_distance(values.astype(jnp.float32), targets, epsilon=1e-12), valid)


def _over_pixels(loss: Callable[[Array, Array], Array], logits: Array, labels: Array) -> Array:
    """Returns the mean of `loss`, with class 0 in the place of what is ignored."""
    valid = has_class(labels, logits.shape[-1])
    return _mean_over(loss(logits.astype(jnp.float32), jnp.where(valid, labels, 0)), valid)


def _mean_over(losses: Array, valid: Array) -> Array:
    return jnp.sum(jnp.where(valid, losses, 0), axis=(1, 2)) / jnp.maximum(jnp.sum(valid, axis=(1, 2)), 1)
