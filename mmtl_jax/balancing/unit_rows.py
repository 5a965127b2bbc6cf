"""A Gramian as lengths and cosines: what the solvers work on, whatever the scales of the tasks."""

from typing import NamedTuple

import jax.numpy as jnp

from mmtl_jax.core.types import Array


class UnitRows(NamedTuple):
    """The gradients of T tasks as unit rows: Gramian = norms * cosines * norms.

    Dividing each row by its length first is what lets float32 hold rows of lengths from 1e-3 to 1e3: the Gramian's own
    condition number would be the square of their ratio times that of the cosines.

    Attributes:
      norms: `[T]` lengths of the gradients, 0 where `nonzero` is False.
      cosines: `[T, T]`, 1 on the diagonal; those with a task that has no direction are 0.
      nonzero: `[T]` bool, the active tasks whose gradient is not zero.
    """

    norms: Array
    cosines: Array
    nonzero: Array


def unit_rows(gramian: Array, active: Array) -> UnitRows:
    """Returns the lengths and cosines of the active tasks; `gramian [T, T]`, `active [T]` bool.

    A gradient counts as zero where the dtype holds no square of its length (below about 1e-19 in float32).
    """
    squares = jnp.where(active, jnp.diagonal(gramian), 0)
    nonzero = squares > 0
    norms = jnp.sqrt(squares)
    safe = jnp.where(nonzero, norms, 1)
    pairs = nonzero[:, None] & nonzero[None, :]
    cosines = jnp.where(pairs, gramian / safe[:, None] / safe[None, :], 0)
    cosines = jnp.where(jnp.eye(len(norms), dtype=bool), 1, jnp.clip(cosines, -1, 1))
    return UnitRows(norms, cosines, nonzero)
