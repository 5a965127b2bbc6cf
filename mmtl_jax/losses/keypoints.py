"""The loss of points in heat maps, per picture."""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array


def keypoint_cross_entropy(logits: Array, keypoints: Array, *, deviation: float = 1.0) -> Array:
    """Returns the cross-entropy between Gaussians around the points and the softmax over the cells, `[B]`.

    The target is the Gaussian of Tompson et al. (2014, 1406.2984) and of most later work, here scaled to a distribution
    over the cells; with a cross-entropy in place of the squared error, the loss of a point is as large on a fine map as
    on a coarse one. The entropy of the target is subtracted, so that the least loss is 0. The mean is over the points
    that are visible, or hidden where it is known; 0 in pictures without any.

    Args:
      logits: `[B, h, w, K]`.
      keypoints: `[B, K, 3]`: y and x as shares of the sides, and visibility; 0 leaves a point out.
      deviation: of the Gaussians, in cells.
    """
    _, height, width, _ = logits.shape
    known = keypoints[..., 2] > 0
    places = jnp.where(known[..., None], keypoints[..., :2], 0.5).astype(jnp.float32)
    log_target = _log_gaussian(places[..., 0], height, deviation)[:, :, None]
    log_target = log_target + _log_gaussian(places[..., 1], width, deviation)[:, None]
    log_predicted = jax.nn.log_softmax(logits.astype(jnp.float32), axis=(1, 2))
    divergence = jnp.sum(jnp.exp(log_target) * (log_target - log_predicted), axis=(1, 2))
    return jnp.sum(jnp.where(known, divergence, 0), axis=1) / jnp.maximum(jnp.sum(known, axis=1), 1)


def _log_gaussian(places: Array, cells: int, deviation: float) -> Array:
    """Returns the logarithm of a Gaussian around `places` `[B, K]`, of sum 1 over the cells, `[B, cells, K]`."""
    steps = jnp.arange(cells)[None, :, None] + 0.5 - places[:, None] * cells
    return jax.nn.log_softmax(-jnp.square(steps / deviation) / 2, axis=1)
