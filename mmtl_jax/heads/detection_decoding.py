"""From what `heads.Detection` predicts to boxes; with fixed shapes, under jit."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn import box_iou

# The score and the class of a place without a detection.
NOTHING = -1


def cell_boxes(distances: Array) -> Array:
    """Returns the box of every cell, `[B, h, w, 4]`, as shares of the sides, from its distances `[B, h, w, 4]`."""
    _, height, width, _ = distances.shape
    y, x = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
    middles = jnp.stack(jnp.meshgrid(y, x, indexing='ij'), axis=-1)[None]
    return jnp.concatenate([middles - distances[..., :2], middles + distances[..., 2:]], axis=-1)


def decode_detections(
    predictions: Mapping[str, Array],
    *,
    max_detections: int = 100,
    iou_threshold: float = 0.5,
    class_agnostic: bool = False,
) -> dict[str, Array]:
    """Returns the detections of each picture, best first, after non-maximum suppression.

    Candidates are the `max_detections` cells that are most probably centres, each with every class, of which again as
    many with the highest scores P(centre) P(class | centre) stay.

    Args:
      predictions: of `heads.Detection`.
      max_detections: the most per picture, K; with a map of fewer cells K is their number.
      iou_threshold: of two boxes of one class that overlap by more, the better stays.
      class_agnostic: leave the classes out: each cell once, with P(centre), all of class 0.

    Returns:
      `boxes` `[B, K, 4]` within the picture, `scores` `[B, K]`, `labels` `[B, K]`; where nothing is, the score and the
      label are -1 and the box is zero.
    """
    batch, height, width = predictions['centres'].shape
    centres = jax.nn.sigmoid(predictions['centres'].astype(jnp.float32)).reshape(batch, height * width)
    boxes = cell_boxes(predictions['distances'].astype(jnp.float32)).reshape(batch, height * width, 4)
    number = min(max_detections, height * width)
    scores, cells = jax.lax.top_k(centres, number)
    labels = jnp.zeros(scores.shape, jnp.int32)
    if not class_agnostic:
        classes = jax.nn.softmax(predictions['classes'].astype(jnp.float32)).reshape(batch, height * width, -1)
        joint = scores[..., None] * jnp.take_along_axis(classes, cells[..., None], axis=1)
        scores, pairs = jax.lax.top_k(joint.reshape(batch, -1), number)
        cells = jnp.take_along_axis(cells, pairs // classes.shape[-1], axis=1)
        labels = (pairs % classes.shape[-1]).astype(jnp.int32)
    boxes = jnp.clip(jnp.take_along_axis(boxes, cells[..., None], axis=1), 0, 1)
    kept = non_maximum_suppression(boxes, scores, labels, iou_threshold=iou_threshold)
    order = jnp.argsort(~kept, axis=1, stable=True)
    boxes, scores, labels, kept = (
        jnp.take_along_axis(values, order.reshape(order.shape + (1,) * (values.ndim - 2)), axis=1)
        for values in (boxes, scores, labels, kept)
    )
    return {
        'boxes': jnp.where(kept[..., None], boxes, 0),
        'scores': jnp.where(kept, scores, NOTHING),
        'labels': jnp.where(kept, labels, NOTHING),
    }


def non_maximum_suppression(
    boxes: Array, scores: Array, labels: Array, mask: Array | None = None, *, iou_threshold: float = 0.5
) -> Array:
    """Returns which boxes stay, `[B, K]` bool: those that overlap no better one of their class that stays.

    This is the greedy algorithm: best first, of equal scores the earlier. Box i stays where no better j that stays has
    an IoU above the threshold with it. That has one solution, which repeated evaluation finds: after n rounds the best
    n boxes are right, in practice all of them after as many rounds as boxes chain each other, a handful.

    Args:
      boxes: `[B, K, 4]`.
      scores: `[B, K]`.
      labels: `[B, K]` ints; boxes of different labels leave each other alone.
      mask: `[B, K]` bool, True = real; None for all.
      iou_threshold: the overlap from which on, exclusively, a box gives way.
    """
    mask = jnp.ones(scores.shape, bool) if mask is None else mask
    order = jnp.argsort(jnp.where(mask, -scores, jnp.inf), axis=1, stable=True)
    boxes = jnp.take_along_axis(jnp.where(mask[..., None], boxes, 0), order[..., None], axis=1)
    labels, real = (jnp.take_along_axis(values, order, axis=1) for values in (labels, mask))
    number = scores.shape[1]
    earlier = jnp.tri(number, k=-1, dtype=bool)[None]
    gives_way = box_iou(boxes[:, :, None], boxes[:, None]) > iou_threshold
    gives_way &= (labels[:, :, None] == labels[:, None]) & earlier

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        stays, _ = state
        return real & ~jnp.any(gives_way & stays[:, None], axis=2), stays

    start = again((real, real))
    stays, _ = jax.lax.while_loop(lambda state: jnp.any(state[0] != state[1]), again, start)
    return jnp.take_along_axis(stays, jnp.argsort(order, axis=1), axis=1)
