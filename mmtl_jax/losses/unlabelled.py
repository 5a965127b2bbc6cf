"""Rows without a label."""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, PyTree


def hide_unlabelled(targets: PyTree, labelled: Array) -> PyTree:
    """Returns the targets with neutral values in the unlabelled rows: -1 for integers, 0 for numbers, False for masks.

    A loss of such a row is then finite, and so is its gradient, whatever the data left there; -1 as a group keeps the
    row out of the contrastive losses. The row's loss itself must still be left out of the mean.

    Args:
      targets: pytree of arrays `[B, ...]`.
      labelled: `[B]` bool.
    """

    def hide(values: Array) -> Array:
        rows = labelled.reshape((-1,) + (1,) * (values.ndim - 1))
        return jnp.where(rows, values, -1 if jnp.issubdtype(values.dtype, jnp.integer) else 0).astype(values.dtype)

    return jax.tree.map(hide, targets)
