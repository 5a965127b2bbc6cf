"""The loss of centre-based detection, and which cell of the map answers for which object; all under jit."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.losses.boxes import generalized_iou
from mmtl_jax.nn import box_area, fill_masked

# Of the Gaussians around the centres: their deviation is this share of a sixth of the side of the box.
SPREAD = 0.54
# Cells of this distance from a centre, in rows and in columns, learn its box, too.
RADIUS = 1


class Assignment(NamedTuple):
    """What the cells of a map have to say.

    Attributes:
      heat: `[B, h, w]`, 1 at a centre and less around it.
      centre: `[B, h, w]` bool, the cell holds the centre of an object.
      counts: `[B, h, w]` bool; False within a crowd, where it is open what is there.
      positive: `[B, h, w]` bool, the cell has an object.
      owner: `[B, h, w]` int32, which of the boxes that is; 0 where the cell has none.
    """

    heat: Array
    centre: Array
    counts: Array
    positive: Array
    owner: Array


def assign(boxes: Ragged, shape: tuple[int, int], crowd: Array | None = None) -> Assignment:
    """Returns which cell of a map of `shape` answers for which box.

    The heat is the maximum over the objects of Gaussians around the cells with their centres (CenterNet, 1904.07850,
    section 3), as wide as the box is wide and as high as it is high (TTFNet, Liu et al. 2019, 1909.00700, equation 2).
    A cell learns the box of the object whose centre it holds; or, if it lies in a box and next to its centre, of that
    one (FCOS, 1904.01355, with the sampling of centres of its later version). Of several the smallest counts (there,
    section 3.1).

    Args:
      boxes: `[B, N, 4]`, ymin, xmin, ymax, xmax from 0 to 1, N at least 1.
      shape: height and width of the map.
      crowd: `[B, N]` bool: the box is around a crowd, which is no object.
    """
    height, width = shape
    crowd = jnp.zeros(boxes.mask.shape, bool) if crowd is None else crowd
    edges, valid = fill_masked(boxes.values.astype(jnp.float32), boxes.mask), boxes.mask & ~crowd
    rows, columns = _Axis.of(edges[..., 0::2], height), _Axis.of(edges[..., 1::2], width)
    real = valid[:, :, None, None]

    def both(of_rows: Array, of_columns: Array) -> Array:
        return of_rows[:, :, :, None] & of_columns[:, :, None, :]

    heat = jnp.where(real, rows.heat[:, :, :, None] * columns.heat[:, :, None, :], 0)
    centre = both(rows.centre, columns.centre) & real
    candidate = centre | (both(rows.near & rows.inside, columns.near & columns.inside) & real)
    # An area is at most 1, so that cells with a centre go to its object whatever lies around them.
    cost = jnp.where(centre, 0.0, 2.0) + box_area(edges)[:, :, None, None]
    in_crowd = both(rows.inside, columns.inside) & (boxes.mask & crowd)[:, :, None, None]
    positive = jnp.any(candidate, axis=1)
    owner = jnp.argmin(jnp.where(candidate, cost, jnp.inf), axis=1).astype(jnp.int32)
    any_centre = jnp.any(centre, axis=1)
    return Assignment(
        heat=jnp.max(heat, axis=1),
        centre=any_centre,
        counts=any_centre | ~jnp.any(in_crowd, axis=1),
        positive=positive,
        owner=jnp.where(positive, owner, 0),
    )


class _Axis(NamedTuple):
    """What the cells of one axis are to each box, `[B, N, cells]`."""

    heat: Array
    centre: Array
    near: Array
    inside: Array

    @classmethod
    def of(cls, ends: Array, cells: int) -> '_Axis':
        """Returns it for boxes from `ends[..., 0]` to `ends[..., 1]`."""
        places = jnp.arange(cells)[None, None]
        middle = jnp.clip(jnp.floor(ends.mean(axis=-1) * cells), 0, cells - 1)
        steps = jnp.abs(places - middle[..., None])
        # Below a cell the Gaussian is as narrow as that of an object of one cell.
        deviation = jnp.maximum(SPREAD * (ends[..., 1] - ends[..., 0]) * cells, 1.0)[..., None] / 6
        points = (places + 0.5) / cells
        return cls(
            heat=jnp.exp(-jnp.square(steps / deviation) / 2),
            centre=steps == 0,
            near=steps <= RADIUS,
            inside=(points > ends[..., :1]) & (points < ends[..., 1:]),
        )


def centre_focal(logits: Array, assignment: Assignment, *, alpha: float = 2.0, beta: float = 4.0) -> Array:
    """Returns the focal loss of a heat map (CenterNet, 1904.07850, equation 1), per object, `[B]`.

    With p the predicted and Y the wanted heat,

        -(1 / N) sum over the cells of (1 - p)^alpha log p at a centre, (1 - Y)^beta p^alpha log(1 - p) elsewhere,

    N the cells with a centre, at least 1.

    Args:
      logits: `[B, h, w]`.
      assignment: of `assign`.
      alpha: how much cells that are right count less.
      beta: how much cells near a centre count less.
    """
    logits = logits.astype(jnp.float32)
    log_yes, log_no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    at_centre = jnp.exp(alpha * log_no) * log_yes
    elsewhere = jnp.power(1 - assignment.heat, beta) * jnp.exp(alpha * log_yes) * log_no
    cells = jnp.where(assignment.centre, at_centre, jnp.where(assignment.counts, elsewhere, 0))
    return -jnp.sum(cells, axis=(1, 2)) / jnp.maximum(jnp.sum(assignment.centre, axis=(1, 2)), 1)


def detection(
    predictions: Mapping[str, Array],
    predicted_boxes: Array,
    boxes: Ragged,
    labels: Ragged,
    crowd: Ragged | None = None,
    *,
    box_weight: float = 2.0,
    class_weight: float = 1.0,
) -> Array:
    """Returns the loss of centres, boxes and classes, `[B]`.

    It is `centre_focal`, plus `box_weight` times the mean of 1 - GIoU, plus `class_weight` times the mean
    cross-entropy, both over the cells that have an object; 0 in pictures without any. A box whose class is out of range
    counts for the centres and for the boxes alone.

    Args:
      predictions: `centres` `[B, h, w]` and `classes` `[B, h, w, C]`, logits.
      predicted_boxes: `[B, h, w, 4]`, the box of every cell.
      boxes: `[B, N, 4]`: ymin, xmin, ymax, xmax from 0 to 1.
      labels: `[B, N]` ints; their mask is not looked at.
      crowd: `[B, N]` bool: the box is around a crowd, where every answer is right.
      box_weight: of the boxes.
      class_weight: of the classes.
    """
    batch, height, width, num_classes = predictions['classes'].shape
    assignment = assign(boxes, (height, width), None if crowd is None else crowd.values.astype(bool))
    owner = assignment.owner.reshape(batch, height * width)
    edges = fill_masked(boxes.values.astype(jnp.float32), boxes.mask)
    wanted = jnp.take_along_axis(edges, owner[..., None], axis=1).reshape(batch, height, width, 4)
    misfit = 1 - generalized_iou(predicted_boxes.astype(jnp.float32), wanted)
    label = jnp.take_along_axis(labels.values, owner, axis=1).reshape(batch, height, width)
    log_probabilities = jax.nn.log_softmax(predictions['classes'].astype(jnp.float32))
    surprise = -jnp.sum(jax.nn.one_hot(label, num_classes) * log_probabilities, axis=-1)
    of_class = assignment.positive & (label >= 0) & (label < num_classes)
    losses = centre_focal(predictions['centres'], assignment)
    losses += box_weight * _mean_where(misfit, assignment.positive)
    return losses + class_weight * _mean_where(surprise, of_class)


def _mean_where(values: Array, mask: Array) -> Array:
    """Returns the mean of `values` `[B, h, w]` over the cells of `mask`, `[B]`; 0 without any."""
    return jnp.sum(jnp.where(mask, values, 0), axis=(1, 2)) / jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)
