"""Projection onto the dual cone of the gradients: UPGrad and the dual projection."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mmtl_jax.balancing.base import Balancer, Signals, check_length
from mmtl_jax.balancing.nonnegative import GUESS, nonnegative_quadratic, rounding
from mmtl_jax.balancing.unit_rows import unit_rows
from mmtl_jax.core.types import Array

# From this many problems on, a first guess by matrix products saves more time than it costs.
MANY = 48


def project_onto_dual_cone(cosines: Array, points: Array) -> Array:
    """Returns the projections of K points onto the dual cone {d: Jd >= 0}, as combinations of the rows of J.

    The projection of J'u is J'(u + x), with x the minimiser over x >= 0 of |J'(u + x)|^2 / 2: a combination v >= u of
    least norm. It is unique, x where the rows are independent. Conditions: x >= 0, JJ'(u + x) >= 0, and for each row
    one of the two is 0.

    As many points as tasks, 100 in float32 on a CPU, take about 1 ms where the rows are far from dependent or where the
    cone is 0 (normal numbers in more than 100 or less than 51 dimensions). In between it takes longer, and most, up to
    120 ms, in 51: the cone is thinnest there, guesses fail, and each point takes a program of its own.

    Args:
      cosines: JJ', `[T, T]`, of rows of length 1.
      points: `[K, T]`, each the u of a point J'u.

    Returns:
      `[K, T]`, each a v = u + x.
    """
    linear = -points @ cosines
    if len(points) < MANY:
        return points + jax.vmap(nonnegative_quadratic, in_axes=(None, 0))(cosines, linear)
    # One problem after the other keeps the tableau in the cache; a good guess leaves nothing to do.
    guesses = _active_set_guess(cosines, linear, _stationary_guess(cosines, points))
    return points + lax.map(lambda problem: nonnegative_quadratic(cosines, *problem), (linear, guesses))


def _stationary_guess(cosines: Array, points: Array) -> Array:
    """Returns what solves all problems at once where the cone holds nothing but 0, else anything.

    A combination w of the rows of J with no weight below 1 and the least norm then is 0, and so is every multiple of
    it; the smallest that is no less than u is the v of the point J'u.
    """
    ones = jnp.ones(len(cosines), cosines.dtype)
    weights = ones + nonnegative_quadratic(cosines, -cosines @ ones)
    return jnp.max(points / weights[None, :], axis=1)[:, None] * weights[None, :] - points


def _active_set_guess(matrix: Array, linear: Array, first: Array, max_rounds: int = 40, steps: int = 8) -> Array:
    """Returns what mostly minimises x'Ax / 2 - b'x over x >= 0 for each row b of `linear [K, T]`.

    The primal-dual active-set method (Hintermueller, Ito and Kunisch, SIAM J. Optim. 13, 2002), with a few steps of
    conjugate gradients on the guessed support in place of a factorization, so that all K problems share matrix
    products. It needs no more than a few rounds where the rows are far from dependent, and may not get there at all
    where they are not: the caller checks. Problems that `first [K, T]` solves are left at that.
    """
    bound = GUESS * jax.vmap(rounding, in_axes=(None, 0, 0))(matrix, linear, jnp.zeros_like(linear))

    def slack_of(x: Array) -> Array:
        return x @ matrix - linear

    def unsolved(x: Array, slack: Array) -> Array:
        tolerance = bound + GUESS * jnp.finfo(x.dtype).eps * jnp.sum(jnp.abs(x), axis=1)
        return jnp.max(jnp.abs(jnp.minimum(x, slack)), axis=1) > tolerance

    def conjugate_gradients(x: Array, support: Array) -> Array:
        def step(_: int, state: tuple) -> tuple:
            x, residual, direction, square = state
            image = jnp.where(support, direction @ matrix, 0)
            curvature = jnp.sum(direction * image, axis=1)
            length = square / jnp.where(curvature > 0, curvature, jnp.inf)
            x = x + length[:, None] * direction
            residual = residual - length[:, None] * image
            new_square = jnp.sum(residual**2, axis=1)
            ratio = new_square / jnp.where(square > 0, square, jnp.inf)
            return x, residual, residual + ratio[:, None] * direction, new_square

        x = jnp.where(support, x, 0)
        residual = jnp.where(support, linear - x @ matrix, 0)
        return lax.fori_loop(0, steps, step, (x, residual, residual, jnp.sum(residual**2, axis=1)))[0]

    def again(state: tuple) -> tuple:
        x, slack, left, count = state
        new = conjugate_gradients(x, x > slack)
        x = jnp.where(left[:, None], new, x)
        slack = slack_of(x)
        return x, slack, unsolved(x, slack), count + 1

    left = unsolved(first, slack_of(first))
    x = jnp.where(left[:, None], 0, first)
    state = x, slack_of(x), left, 0
    return lax.while_loop(lambda state: (state[3] < max_rounds) & jnp.any(state[2]), again, state)[0]


def upgrad(preference: Sequence[float] | None = None) -> Balancer:
    """Returns UPGrad: the mean of the gradients, each first made to harm no task (2406.16232, equation 6).

    With p_t the preference and P the projection onto the dual cone {d: g_t . d >= 0 for all t}, the direction is

        sum over t of p_t P(g_t).

    It conflicts with no gradient. Each projection is exact (see `project_onto_dual_cone`); LibMTL and TorchJD add
    `reg_eps = 1e-4` to the normalised Gramian, which shifts the direction by up to 11 % of the Jacobian's norm, and
    return the plain mean when its squared norm is below 1e-4.

    The task-own heads receive their own gradients, as in LibMTL and TorchJD.

    Convention: a mean, as in the paper, LibMTL and TorchJD (factor 1); T times it takes the place of a sum of losses.

    Degenerate cases. A gradient of 0 constrains nothing and adds nothing; it counts in the mean. Opposite gradients
    both project onto what is orthogonal to them, so two opposite gradients alone give 0. Of several combinations that
    give the direction (dependent gradients), one is returned.

    Args:
      preference: p, one number for each task, at least 0; 1 / T over the active tasks if not given.

    Raises:
      ValueError: a preference is negative or not finite; from `init`, their number is not the number of tasks.
    """

    def combine(cosines: Array, lengths: Array) -> Array:
        return lengths @ project_onto_dual_cone(cosines, jnp.eye(len(lengths), dtype=lengths.dtype))

    return _dual_cone('upgrad', preference, combine)


def dual_projection(preference: Sequence[float] | None = None) -> Balancer:
    """Returns the mean gradient, projected onto what harms no task (as in GEM, Lopez-Paz and Ranzato, 1706.08840).

    The direction is the nearest to the sum over t of p_t g_t, with p the preference, in the dual cone
    {d: g_t . d >= 0 for all t}: that sum itself if it conflicts with no gradient. Exact, as `upgrad`, which says what
    differs in TorchJD (DualProj): there `reg_eps = 1e-4` shifts the direction and small gradients are just averaged.

    The task-own heads receive their own gradients, as in TorchJD.

    Convention: a mean, as in TorchJD (factor 1); LibMTL has no such method.

    Degenerate cases: as in `upgrad`.

    Args:
      preference: p, one number for each task, at least 0; 1 / T over the active tasks if not given.

    Raises:
      ValueError: a preference is negative or not finite; from `init`, their number is not the number of tasks.
    """

    def combine(cosines: Array, lengths: Array) -> Array:
        return project_onto_dual_cone(cosines, lengths[None])[0]

    return _dual_cone('dual_projection', preference, combine)


def _dual_cone(name: str, preference: Sequence[float] | None, combine: Callable[[Array, Array], Array]) -> Balancer:
    """Returns the balancer whose weights on unit rows are `combine(cosines, preference * lengths)`."""
    if preference is not None and not all(math.isfinite(p) and p >= 0 for p in preference):
        raise ValueError(f'the preference of {name} must be finite and at least 0, got {tuple(preference)}.')

    def init(num_tasks: int) -> tuple:
        if preference is not None:
            check_length(f'the preference of {name}', len(preference), num_tasks)
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        norms, cosines, nonzero = unit_rows(signals.gramian, signals.active)
        given = 1 / jnp.maximum(jnp.sum(signals.active), 1) if preference is None else jnp.asarray(preference)
        share = jnp.where(signals.active, given.astype(norms.dtype), 0)
        # Relative to the longest, so that no product of lengths is too small for the dtype.
        longest = jnp.max(norms)
        relative = norms / jnp.where(longest > 0, longest, 1)
        combined = combine(cosines, share * relative) / jnp.where(nonzero, relative, 1)
        return jnp.where(nonzero, combined, share), state

    return Balancer(init=init, update=update, needs='gramian', heads='own')
