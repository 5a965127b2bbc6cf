"""The best worst improvement within a ball around the mean gradient: CAGrad."""

import math

import jax.numpy as jnp
from jax import lax

from mmtl_jax.balancing.base import Balancer, from_weighting
from mmtl_jax.balancing.minimum_norm import hull_square, vanishes
from mmtl_jax.balancing.nonnegative import nonnegative_quadratic
from mmtl_jax.balancing.unit_rows import unit_rows
from mmtl_jax.core.types import Array

RESCALE = {0: lambda c: 1.0, 1: lambda c: 1 / (1 + c**2), 2: lambda c: 1 / (1 + c)}
# Of Newton's method in the least gain; it takes about 5.
MAX_STEPS = 50


def conflict_averse(cosines: Array, mean: Array, ratios: Array, least: Array, capped: Array, c: float) -> Array:
    """Returns how far the mean moves to the best least gain, as a combination of unit rows.

    With unit rows U, lengths 1 / h and the mean m = U'v, the direction d is the one within c |m| of m with the largest
    least gain, level = min over t of u_t . d / h_t. Turned around: the direction nearest to m with Ud >= level h is
    m + z with the shortest z that has Uz >= f = level h - Um, a least-distance program (Lawson and Hanson, Solving
    Least Squares Problems, 1974, chapter 23), in any unit of length:

        z = U'x,    x = y / (1 - f'y),    y minimising |U'y|^2 / 2 + (f'y - 1)^2 / 2 over y >= 0

    (`nonnegative_quadratic`). |z| is a convex, increasing function of the level, with the derivative h'x / |z|.
    Newton's method from above therefore comes down to the level at which |z| = c |m| without passing it, in about 5
    programs with up to O(T^3) operations each. It starts from (1 + c) |m| times the least norm in the hull of the rows
    u_t / h_t: no direction in the ball has a higher level, and at this one |z| is at most (2 + c) |m|.

    Where no direction is a gain for all, the level cannot exceed 0, and the distance at 0 may be less than c |m|: then
    many directions in the ball share the best level, and the one nearest to the mean is taken.

    Args:
      cosines: UU', `[T, T]`.
      mean: v, `[T]`.
      ratios: h, `[T]`, scaled to a maximum of 1; 0 for a row that plays no part.
      least: the least norm in the hull of the rows u_t / h_t, a scalar.
      capped: bool scalar, whether the level cannot exceed 0.
      c: radius of the ball over the norm of the mean, positive.

    Returns:
      x, `[T]`, at least 0.
    """

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.maximum(x @ cosines @ x, 0))

    image = cosines @ mean
    size = norm(mean)
    radius = c * size
    # The unit of length, with which no |f| exceeds 1.
    unit = jnp.where(size > 0, radius + 2 * size, 1)

    def nearest(level: Array) -> Array:
        needed = (level * ratios - image) / unit
        y = nonnegative_quadratic(cosines + needed[:, None] * needed[None, :], needed)
        rest = 1 - needed @ y
        return unit * y / jnp.where(rest > 0, rest, 1)

    def outside(state: tuple) -> Array:
        _, x, _, count = state
        return (count == 0) | ((norm(x) > radius * (1 + 4 * jnp.finfo(mean.dtype).eps)) & (count < MAX_STEPS))

    def newton(state: tuple) -> tuple:
        level, x, first, count = state
        slope = ratios @ x
        step = jnp.where(count > 0, (norm(x) - radius) * norm(x), 0) / jnp.where(slope > 0, slope, jnp.inf)
        x = nearest(level - step)
        return level - step, x, jnp.where(count > 0, first, x), count + 1

    # The first step is none: it finds the x of the highest level.
    highest = jnp.where(capped, 0, (radius + size) * least)
    zeros = jnp.zeros_like(mean)
    _, x, first, _ = lax.while_loop(outside, newton, (highest, zeros, zeros, 0))
    length = norm(x)
    on_sphere = x * radius / jnp.where(length > 0, length, 1)
    return jnp.where(capped & (norm(first) <= radius), first, on_sphere)


def cagrad(c: float = 0.5, rescale: int = 1) -> Balancer:
    """Returns CAGrad: the best worst gain near the mean gradient (Liu et al., 2110.14048, equation 3).

    With g_0 the mean of the gradients, the direction is

        argmax over |d - g_0| <= c |g_0| of min over t of g_t . d    =    g_0 + c |g_0| g_w / |g_w|

    for the w on the simplex that minimises g_w . g_0 + c |g_0| |g_w|, times a factor. Solved exactly (see
    `conflict_averse`); the solvers of LibMTL, TorchJD and the official code have absolute tolerances, so that small
    gradients get uniform weights or an update of 0.

    The task-own heads receive their own gradients, as in LibMTL and TorchJD.

    Convention: a mean. With the defaults the direction is LibMTL's; `rescale=0` is the paper's and TorchJD's, and
    (1 + c^2) times it. The code of Nash-MTL, which it calls CAGrad too, gives T times the direction.

    Degenerate cases. Where some direction is a gain for all, the best one is unique, also if dependent gradients leave
    several w. Where none is (a gradient of 0, or 0 in the convex hull of the directions up to a squared norm of 16
    machine epsilons) and the ball reaches the dual cone, as it always does for c >= 1, every direction in both has the
    best worst gain, 0; the nearest to g_0 is taken, that of `dual_projection`. TorchJD returns 0 there, LibMTL what its
    epsilon makes of it. Between the two cases the direction jumps: just short of stationarity, the best one lies on the
    sphere. If g_0 is 0, so is the direction. A single task gets its gradient times 1 + c and the factor.

    Args:
      c: radius of the ball over the norm of g_0, at least 0; 0.5 in LibMTL, 0.4 in the official code.
      rescale: 0: the factor is 1; 1: 1 / (1 + c^2), the default of LibMTL and the official code; 2: 1 / (1 + c).

    Raises:
      ValueError: `c` is negative, or `rescale` is another number.
    """
    if not (c >= 0 and math.isfinite(c)):
        raise ValueError(f'c of cagrad must be finite and at least 0, got {c}.')
    if rescale not in RESCALE:
        raise ValueError(f'rescale of cagrad must be one of {tuple(RESCALE)}, got {rescale!r}.')

    def weighting(gramian: Array, active: Array) -> Array:
        rows = unit_rows(gramian, active)
        uniform = (active / jnp.maximum(jnp.sum(active), 1)).astype(rows.norms.dtype)
        longest = jnp.max(rows.norms)
        relative = jnp.where(rows.nonzero, rows.norms / jnp.where(longest > 0, longest, 1), 1)
        ratios = jnp.where(rows.nonzero, jnp.min(relative) / relative, 0)
        hulls = jnp.stack([rows.nonzero.astype(ratios.dtype), ratios])
        # One after the other, so that there is one to compile.
        square, scaled = lax.map(lambda h: hull_square(rows.cosines, h), hulls)
        capped = jnp.any(active & ~rows.nonzero) | vanishes(square)
        mean = jnp.where(rows.nonzero, uniform * relative, 0)
        # Without a ball there is nothing to solve, and Newton's method would crawl.
        least = jnp.sqrt(jnp.maximum(scaled, 0))
        x = conflict_averse(rows.cosines, mean, ratios, least, capped, c) if c > 0 else jnp.zeros_like(mean)
        return RESCALE[rescale](c) * (uniform + x / relative)

    return from_weighting(weighting, heads='own')
