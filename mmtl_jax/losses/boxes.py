"""How well boxes fit, per box."""

import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn import box_area, box_overlap


def generalized_iou(boxes: Array, others: Array) -> Array:
    r"""Returns the generalised intersection over union (Rezatofighi et al. 2019, 1902.09630, algorithm 1), `[...]`.

    With C the smallest box around both,

        GIoU = |A and B| / |A or B| - (|C| - |A or B|) / |C|,

    between -1 and 1; 1 - GIoU is the loss. It has a gradient where the boxes do not meet. Boxes without area give
    finite values and gradients.

    Args:
      boxes: `[..., 4]`: ymin, xmin, ymax, xmax.
      others: the same; the shapes broadcast.
    """
    intersection, union = box_overlap(boxes, others)
    around = box_area(
        jnp.concatenate(
            [jnp.minimum(boxes[..., :2], others[..., :2]), jnp.maximum(boxes[..., 2:], others[..., 2:])], axis=-1
        )
    )
    union_or_one, around_or_one = jnp.where(union > 0, union, 1), jnp.where(around > 0, around, 1)
    return intersection / union_or_one - (around - union) / around_or_one
