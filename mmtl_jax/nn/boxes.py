"""Boxes `[..., 4]`: ymin, xmin, ymax, xmax, in any unit. Two arrays of boxes meet by broadcasting."""

import jax.numpy as jnp

from mmtl_jax.core.types import Array


def box_area(boxes: Array) -> Array:
    """Returns the areas `[...]`; 0 where an end lies before its beginning."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def box_overlap(boxes: Array, others: Array) -> tuple[Array, Array]:
    """Returns the areas of intersection and union, `[...]` each."""
    both = jnp.concatenate(
        [jnp.maximum(boxes[..., :2], others[..., :2]), jnp.minimum(boxes[..., 2:], others[..., 2:])], axis=-1
    )
    intersection = box_area(both)
    return intersection, box_area(boxes) + box_area(others) - intersection


def box_iou(boxes: Array, others: Array) -> Array:
    """Returns intersection over union, `[...]`; 0 for two boxes without area."""
    intersection, union = box_overlap(boxes, others)
    return intersection / jnp.where(union > 0, union, 1)
