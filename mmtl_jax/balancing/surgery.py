"""Gradient surgery: altering each task's gradient where it conflicts with another's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.arithmetic import next_key, reciprocal
from mmtl_jax.balancing.base import Balancer, Signals, mask_inactive
from mmtl_jax.balancing.unit_rows import unit_rows
from mmtl_jax.core.types import Array

# The largest cosine that GradVac aims at has this sine: towards parallel gradients its vectors grow as 1 / sine.
SMALLEST_SINE = 1e-3


def pcgrad(*, shuffle: bool = True, seed: int = 0) -> Balancer:
    r"""Returns PCGrad, which projects away what conflicts (Yu et al., 2001.06782, algorithm 1).

    Task i visits the other tasks j in an order of its own and, from g'_i = g_i on, replaces

        g'_i <- g'_i - (g'_i . g_j) / |g_j|^2 g_j    where g'_i . g_j < 0,

    with g_j as it was. The direction is the sum of all g'_i, computed as weights from the Gramian alone: T rounds, each
    for all i at once. The task-own heads receive their own task's gradient, as in LibMTL and TorchJD.

    Both libraries return this same sum (factor 1) for the same order. LibMTL adds 1e-8 to |g_j|^2, which at gradients
    of length 1e-5 changes the result by 41 %, and lets a task visit itself, which the algorithm excludes; here, as in
    TorchJD, neither.

    Degenerate cases: a zero gradient conflicts with none and has the weight 1; two opposite gradients cancel.

    Args:
      shuffle: every task draws a new random order each step, as in the paper; False: the order of the tasks, which is
        what the authors' code comes to (it discards the result of its shuffle), and as permutation-dependent.
      seed: of the random orders.
    """

    def update(signals: Signals, key: Array) -> tuple[Array, Array]:
        key, order = _visits(key, signals.active, shuffle)
        length, cosine, _ = unit_rows(signals.gramian, signals.active)
        selves = jnp.arange(len(length))

        def visit(products: Array, other: Array) -> tuple[Array, Array]:
            """Row i of `products` holds g'_i . g_j / |g_j| for all j, in units of |g_i|."""
            product = products[selves, other]
            change = jnp.where((product < 0) & (other != selves), -product, 0)
            return products + change[:, None] * cosine[other], change

        _, changes = jax.lax.scan(visit, cosine, order)
        return mask_inactive(_weights(changes, order, length), signals.active), key

    return Balancer(init=lambda num_tasks: jax.random.PRNGKey(seed), update=update, needs='gramian', heads='own')


class GradVacState(NamedTuple):
    """Attributes: target `[T, T]`, the cosine that task i aims at with task j, and the random key of the orders."""

    target: Array
    key: Array


def gradvac(beta: float = 1e-2, *, shuffle: bool = True, seed: int = 0) -> Balancer:
    r"""Returns Gradient Vaccine, which aims at the usual cosine of each pair (Wang et al., 2010.05874, algorithm 1).

    As `pcgrad`, but where c = cos(g'_i, g_j) is below the target t_ij, an exponential moving average of c from 0,

        g'_i <- g'_i + |g'_i| (t_ij sqrt(1 - c^2) - c sqrt(1 - t_ij^2)) / (|g_j| sqrt(1 - t_ij^2)) g_j,

    after which the cosine is t_ij; then, whether or not it was below, t_ij <- (1 - beta) t_ij + beta c. The direction
    is the sum of all g'_i, computed from the Gramian alone; for targets per group of parameters, wrap it in
    `per_group`. The task-own heads receive their own task's gradient, as in LibMTL and TorchJD.

    The defaults are the paper's; LibMTL and TorchJD take beta = 0.5. Both return this same sum (factor 1). LibMTL's
    square root of 1 - c^2 may be of a negative number; here it is (1 - c) (1 + c) of a clipped cosine, and the absolute
    1e-8 of LibMTL's denominators are left out.

    Degenerate cases: a zero gradient, or one that was altered to zero (opposite gradients and target 0), makes no
    angle: it is not altered and moves no target. Equal gradients drive a target towards 1, where the formula would
    blow up at the first difference; the target used is at most the cosine whose sine is 0.001. A pair with an inactive
    task keeps its target.

    Args:
      beta: rate of the moving average, from 0 (every target stays 0: PCGrad) to 1.
      shuffle: every task draws a new random order each step; False: the order of the tasks.
      seed: of the random orders.

    Raises:
      ValueError: beta is not between 0 and 1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f'gradvac needs a beta between 0 and 1, got {beta}.')

    def init(num_tasks: int) -> GradVacState:
        return GradVacState(jnp.zeros((num_tasks, num_tasks)), jax.random.PRNGKey(seed))

    def update(signals: Signals, state: GradVacState) -> tuple[Array, GradVacState]:
        key, order = _visits(state.key, signals.active, shuffle)
        length, cosine, nonzero = unit_rows(signals.gramian, signals.active)
        selves = jnp.arange(len(length))
        # In units of |g_i|. What is shorter than this is the rounding error of gradients that cancel.
        vanished = 8 * jnp.sqrt(jnp.finfo(cosine.dtype).eps)
        targets = jnp.minimum(state.target.astype(cosine.dtype), jnp.sqrt(1 - SMALLEST_SINE**2))

        def visit(altered: tuple[Array, Array], other: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            """`altered`: |g'_i|, and g'_i . g_j / |g_j| for all j, in units of |g_i|."""
            size, products = altered
            c = jnp.clip(products[selves, other] * reciprocal(size), -1, 1)
            target = targets[selves, other]
            sine, target_sine = jnp.sqrt((1 - c) * (1 + c)), jnp.sqrt((1 - target) * (1 + target))
            angle = (size > 0) & nonzero[other] & (other != selves)
            below = angle & (c < target)
            change = jnp.where(below, size * (target * sine / target_sine - c), 0)
            # What is orthogonal to g_j stays: |g'_i| sin is the same before and after, and nothing cancels.
            size = jnp.where(below, size * sine / target_sine, size)
            size = jnp.where(size > vanished, size, 0)
            return (size, products + change[:, None] * cosine[other]), (change, jnp.where(angle, c, jnp.nan))

        start = (nonzero.astype(cosine.dtype), cosine)
        _, (changes, seen) = jax.lax.scan(visit, start, order)
        seen = jnp.full_like(cosine, jnp.nan).at[selves[None, :], order].set(seen)
        target = jnp.where(jnp.isnan(seen), state.target, (1 - beta) * state.target + beta * seen)
        weights = mask_inactive(_weights(changes, order, length), signals.active)
        return weights, GradVacState(target.astype(state.target.dtype), key)

    return Balancer(init=init, update=update, needs='gramian', heads='own')


def _visits(key: Array, active: Array, shuffle: bool) -> tuple[Array, Array]:
    """Returns the next key and the task `[T, T]` that, in each round (first axis), each task visits.

    The order among the active tasks is the same as if the others did not exist.
    """
    num_tasks = len(active)
    tasks = jnp.arange(num_tasks)
    if not shuffle:
        return key, jnp.broadcast_to(tasks[:, None], (num_tasks, num_tasks))
    numbers = jax.random.uniform(key, (num_tasks**2,))
    rank = jnp.cumsum(active) - 1
    row, column = rank[:, None], rank[None, :]
    # Counts the entries of a square in shells around its corner, so that a larger one keeps the numbers of a smaller.
    shell = jnp.maximum(row, column)
    return next_key(key), jnp.argsort(numbers[shell**2 + shell + row - column], axis=1).T


def _weights(changes: Array, order: Array, length: Array) -> Array:
    """Returns the weights `[T]` of the sum of the altered gradients.

    Args:
      changes: `[rounds, T]`, by how much of g_j / |g_j|, in units of |g_i|, task i was altered in each round.
      order: `[rounds, T]`, the task j.
      length: `[T]`.
    """
    added = jnp.zeros_like(length).at[order].add(changes * length[None, :])
    return 1 + added * reciprocal(length)
