"""The point of least norm in the convex hull of the gradients: MGDA."""

import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Signals, mask_inactive
from mmtl_jax.balancing.nonnegative import nonnegative_quadratic
from mmtl_jax.balancing.unit_rows import UnitRows, unit_rows
from mmtl_jax.core.types import Array

NORMALIZATIONS = ('none', 'l2', 'loss', 'loss+')
# Times the machine epsilon: a squared least norm of unit rows that cannot be told from 0.
STATIONARY = 16


def minimum_norm(cosines: Array, inverse_lengths: Array) -> Array:
    """Returns the point of least norm in the convex hull of T rows, as a combination of the rows made unit.

    The rows are u_i / h_i with |u_i| = 1 and 1 / h_i their lengths. With w = h y / h'y on the simplex, the point is
    U'y / h'y, and the problem on the simplex is one on the orthant: the minimiser over y >= 0 of

        |U'y|^2 / 2 + (h'y - 1)^2 / 2

    has UU'y - (1 - h'y) h >= 0, with equality where y > 0; divided by h'y, these are the conditions of the least norm,
    that no row has a smaller inner product with the point than the point itself.

    Args:
      cosines: UU', `[T, T]`.
      inverse_lengths: h, `[T]`, scaled to a maximum of 1. A row of h = 0 is infinitely long.

    Returns:
      y / h'y, `[T]`; zeros if h = 0.
    """
    matrix = cosines + inverse_lengths[:, None] * inverse_lengths[None, :]
    y = nonnegative_quadratic(matrix, inverse_lengths)
    total = inverse_lengths @ y
    return y / jnp.where(total > 0, total, 1)


def hull_square(cosines: Array, inverse_lengths: Array) -> Array:
    """Returns the squared least norm in the convex hull of T rows, given as for `minimum_norm`; a scalar."""
    hull = minimum_norm(cosines, inverse_lengths)
    return hull @ cosines @ hull


def vanishes(square: Array) -> Array:
    """Returns whether the squared least norm of the hull of unit rows cannot be told from 0.

    In the dtype of the Gramian, rounding alone leaves up to 1 machine epsilon of it. Up to 16 count as 0, because
    above it what a method makes of the difference may be large, and would be made of noise.
    """
    return square <= STATIONARY * jnp.finfo(square.dtype).eps


def is_stationary(rows: UnitRows) -> Array:
    """Returns whether 0 is in the convex hull of the rows that are not zero, up to rounding; False without any."""
    return jnp.any(rows.nonzero) & vanishes(hull_square(rows.cosines, rows.nonzero.astype(rows.norms.dtype)))


def mgda(normalization: str = 'none') -> Balancer:
    """Returns MGDA: the point of least norm in the convex hull of the gradients (Sener and Koltun, 1810.04650).

    The weights are those on the simplex that minimise |sum of w_t g_t / s_t|^2, over s_t for the direction, which is
    that of Desideri's multiple-gradient descent: no task loses by it, and it is 0 exactly where the point is Pareto
    stationary. s_t is 1 ('none'), |g_t| ('l2'), L_t ('loss') or L_t |g_t| ('loss+'). Solved exactly (see
    `minimum_norm`); the iterations of LibMTL, TorchJD and the official code stop up to 214 % above the least norm.

    With a normalisation, it is the normalised gradients that are combined, as in LibMTL at the parameters: only their
    combination is sure to be a descent direction for all. LibMTL at the features, and the official code, weigh the
    gradients as they were.

    The task-own heads receive their own gradients, as in LibMTL and TorchJD; the official code weighs the whole loss.

    Convention: the direction is LibMTL's and TorchJD's (factor 1). Gradients times c give a direction times c for
    'none' and 'loss' and the same direction for the other two.

    Degenerate cases. If a gradient is 0 the point is Pareto stationary: the direction is 0, and such tasks share the
    weight. The size of a loss counts, not its sign; with 'loss' and 'loss+', a task whose loss is 0 has an infinitely
    long gradient, which gets what keeps it from losing, and if all losses are 0, so are all weights. Of several
    combinations that give the direction (dependent gradients), one is returned.

    Args:
      normalization: 'none', the paper's and LibMTL's default, 'l2', 'loss' or 'loss+'.

    Raises:
      ValueError: another normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f'mgda knows the normalizations {NORMALIZATIONS}, got {normalization!r}.')

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        norms, cosines, nonzero = unit_rows(signals.gramian, signals.active)
        scale = jnp.abs(mask_inactive(signals.losses, signals.active)).astype(norms.dtype)
        lengths = jnp.where(nonzero, norms, 1)
        # What each gradient is divided by, over its length.
        inverse = {'none': 1 / lengths, 'l2': jnp.ones_like(norms), 'loss': scale / lengths, 'loss+': scale}
        inverse_lengths = jnp.where(nonzero, inverse[normalization], 0)
        longest = jnp.max(inverse_lengths)
        longest = jnp.where(longest > 0, longest, 1)
        weights = minimum_norm(cosines, inverse_lengths / longest) / lengths / longest
        zero = signals.active & ~nonzero
        weights = jnp.where(jnp.any(zero), zero / jnp.maximum(jnp.sum(zero), 1).astype(norms.dtype), weights)
        return mask_inactive(weights, signals.active), state

    return Balancer(init=lambda num_tasks: (), update=update, needs='gramian', heads='own')
