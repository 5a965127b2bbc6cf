"""Gains that each task weighs by how little it gets: Nash-MTL and FairGrad."""

import math

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve

from mmtl_jax.balancing.base import Balancer, from_weighting
from mmtl_jax.balancing.minimum_norm import is_stationary
from mmtl_jax.balancing.unit_rows import unit_rows
from mmtl_jax.core.types import Array

MAX_STEPS = 100
# Lengths of a Newton step among which the line search takes the one where the objective is flattest.
LENGTHS = tuple(0.5**k for k in range(12))


def bargain(matrix: Array, unit: Array, exponent: float) -> Array:
    """Returns the z > 0 for which (Az)_i = u_i (z_i / u_i)^-b.

    It is the minimiser of z'Az / 2 - sum of u^(1 + b) z^(1 - b) / (1 - b) (of u^2 log z for b = 1): strictly convex, so
    that a Newton step always descends. Steps are relative to z, which keeps the Hessian, brought to a diagonal of 1, as
    well conditioned as the problem allows, and each goes as far as the slope along it tells (of a few lengths, to the
    one where the objective is flattest). Near the solution that is the full step, and convergence is quadratic: 3 to 6
    steps where the rows are far from dependent, 10 to 50 close to stationarity or far from b = 1, each O(T^3).

    Args:
      matrix: A, `[T, T]` positive semidefinite with a diagonal of 1; no z >= 0 but 0 has z'Az = 0.
      unit: u, `[T]` positive, the solution if A is the identity.
      exponent: b > 0.

    Returns:
      z, `[T]`. Below machine epsilon squared times the largest, a z is held there: a combination of rows of length 1
      with the weights z does not feel it.
    """
    epsilon = jnp.finfo(unit.dtype).eps
    lowest = epsilon**2
    lengths = jnp.asarray(LENGTHS, unit.dtype)
    diagonal = jnp.eye(len(unit), dtype=bool)

    def unfinished(state: tuple) -> Array:
        _, change, count = state
        # The step after this one would change z by about the square of this change.
        return (change > jnp.sqrt(epsilon) / 4) & (count < MAX_STEPS)

    def newton(state: tuple) -> tuple:
        z, _, count = state
        force = unit * (z / unit) ** -exponent
        image = matrix @ z
        held = (z <= lowest * jnp.max(z)) & (force < image)
        apart = (held[:, None] | held[None, :]) & ~diagonal
        hessian = z[:, None] * matrix * z[None, :] + jnp.where(diagonal, (exponent * force * z)[:, None], 0)
        root = jnp.sqrt(jnp.diagonal(hessian))
        factor = cho_factor(jnp.where(apart, 0, hessian / root[:, None] / root[None, :]))
        relative = jnp.where(held, 0, cho_solve(factor, z * (force - image) / root) / root)
        new = z * jnp.maximum(1 + _length(z, relative, force, image) * relative, LENGTHS[-1])
        new = jnp.maximum(new, lowest * jnp.max(new))
        # Where rounding has made the Hessian indefinite, nothing better than z is to be had.
        usable = jnp.all(jnp.isfinite(new))
        return jnp.where(usable, new, z), jnp.where(usable, jnp.max(jnp.abs(new - z) / z), 0), count + 1

    def _length(z: Array, relative: Array, force: Array, image: Array) -> Array:
        """Returns the length of the step at which the objective is flattest."""
        step = z * relative
        factors = 1 + lengths[:, None] * relative[None, :]
        possible = jnp.all(factors > 0, axis=1)
        forces = force[None, :] * jnp.where(factors > 0, factors, 1) ** -exponent
        slope = step @ image + lengths * (step @ matrix @ step) - forces @ step
        # The full one if none is possible: what would become negative is then cut to a fraction of what it was.
        return lengths[jnp.argmin(jnp.where(possible, jnp.abs(slope), jnp.inf))]

    # The multiple of u that is best.
    start = unit * ((unit @ unit) / (unit @ matrix @ unit)) ** (1 / (1 + exponent))
    return lax.while_loop(unfinished, newton, (start, jnp.asarray(jnp.inf, unit.dtype), 0))[0]


def nash_mtl(max_norm: float | None = 1.0) -> Balancer:
    """Returns Nash-MTL: the Nash bargaining solution over the tasks' gains (Navon et al., 2202.01017, equation 4).

    The weights solve, with the Gramian G,

        Gw = 1 / w,    w > 0:

    the direction d = J'w of norm sqrt(T) that maximises the sum of log(g_t . d). It does not depend on the sizes of the
    gradients, only on the angles between them: the weights are divided by what a gradient is multiplied with, and the
    direction stays. Here the equation is solved to machine precision at every step (see `bargain`); LibMTL, TorchJD
    and the official code linearise it, call a conic solver up to 20 times, and fall back to weights of 1 silently where
    that fails. `every(nash_mtl(), n)` is their `update_weights_every = n`.

    The task-own heads receive their own gradients. In the peers they get the weights, which grow without bound when the
    shared gradient of a task vanishes, and shrink when it is large.

    Convention: LibMTL, TorchJD and the official code clip in the same way at `max_norm = 1`, so their direction is
    this one, where their solver succeeds; without it, it is the paper's.

    Degenerate cases. A task whose gradient is 0 cannot gain and sits out with the weight 0. If 0 is in the convex hull
    of the other gradients' directions (opposite gradients; up to a squared norm of 16 machine epsilons), no direction
    is a gain for all, there is no bargain, and all weights are 0. A single task gets its gradient at the norm of 1.

    Args:
      max_norm: the direction is scaled down to this norm, which is that of the official code; None leaves it sqrt(T).

    Raises:
      ValueError: `max_norm` is not positive.
    """
    return _bargaining('nash_mtl', 1.0, max_norm)


def fairgrad(alpha: float = 1.0, max_norm: float | None = 1.0) -> Balancer:
    """Returns FairGrad: alpha-fair gains (Ban and Ji, 2402.15638, equation 5).

    The weights solve, with the Gramian G and elementwise,

        Gw = w^(-1 / alpha),    w > 0:

    the direction J'w maximises the sum of u(g_t . d) within a ball, with u(x) = x^(1 - alpha) / (1 - alpha), or log x
    for alpha = 1, which makes it `nash_mtl`. As alpha goes to 0, the sum of the gains counts; as it grows, the least
    gain. Gradients times s give a direction times s^((1 - alpha) / (1 + alpha)). Solved to machine precision (see
    `bargain`); LibMTL and the official code run a least-squares solver from 1 / T.

    The task-own heads receive their own gradients; in LibMTL and the official code the weights, for which see
    `nash_mtl`.

    Convention: with `max_norm=None` the direction is LibMTL's and TorchJD's (factor 1); the official code clips at 1,
    as is the default here.

    Degenerate cases: as in `nash_mtl`; LibMTL gives a gradient of 0 a weight in the hundreds. With alpha far from 1,
    weights range over many orders of magnitude; below machine epsilon squared times the largest of w_t |g_t|, they are
    held there.

    Args:
      alpha: the fairness; 1 as in LibMTL, the paper's experiments use 1 or 2.
      max_norm: the direction is scaled down to this norm, as in the official code; None to leave it.

    Raises:
      ValueError: `alpha` or `max_norm` is not positive.
    """
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f'alpha of fairgrad must be positive and finite, got {alpha}.')
    return _bargaining('fairgrad', alpha, max_norm)


def _bargaining(name: str, alpha: float, max_norm: float | None) -> Balancer:
    if max_norm is not None and not (max_norm > 0 and math.isfinite(max_norm)):
        raise ValueError(f'max_norm of {name} must be positive and finite, or None, got {max_norm}.')

    def weighting(gramian: Array, active: Array) -> Array:
        rows = unit_rows(gramian, active)
        longest = jnp.max(rows.norms)
        longest = jnp.where(longest > 0, longest, 1)
        lengths = jnp.where(rows.nonzero, rows.norms / longest, 1)
        # With z = w * length, the equation in terms of unit rows; the tasks that sit out are apart from the others.
        z = bargain(rows.cosines, lengths ** ((1 - alpha) / (1 + alpha)), 1 / alpha)
        z = jnp.where(rows.nonzero & ~is_stationary(rows), z, 0)
        unit = longest ** ((1 - alpha) / (1 + alpha))
        norm = unit * jnp.sqrt(jnp.maximum(z @ rows.cosines @ z, 0))
        if max_norm is not None:
            unit = unit * jnp.where(norm > max_norm, max_norm / norm, 1)
        return unit * z / lengths / longest

    return from_weighting(weighting, heads='own')
