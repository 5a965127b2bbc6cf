"""Convex quadratic programs with nonnegative variables, solved exactly by principal pivoting."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mmtl_jax.core.types import Array

# Times the machine epsilon and the size of the terms: what rounding alone may leave in a slack.
SLACK = 8
# Times the machine epsilon: a column whose squared distance to the basic ones is less depends on them.
DEPENDENT = 64
# The tableau is rebuilt at most so often after rounding has spoiled it.
REBUILDS = 3
# Of coordinate descent, if even that was of no avail.
SWEEPS = 200


class _Pivoting(NamedTuple):
    table: Array
    x: Array
    slack: Array
    basic: Array
    entering: Array
    count: Array


def nonnegative_quadratic(matrix: Array, linear: Array, guess: Array | None = None) -> Array:
    """Returns the minimiser over x >= 0 of x'Ax / 2 - b'x, in the Gramian's form of nonnegative least squares.

    A is positive semidefinite of unit scale (its diagonal about 1) and b lies in its range, so that the minimum
    exists; where A is singular, Ax is unique and x is one of the minimisers. Optimal is x if and only if

        x >= 0,    s = Ax - b >= 0,    x's = 0.

    The active-set method of Dantzig, van de Panne and Whinston (R. W. Cottle, The Principal Pivoting Method of
    Quadratic Programming, 1968), which for b = J'y is that of Lawson and Hanson (Solving Least Squares Problems, 1974,
    chapter 23) with the factorization replaced by a tableau: the variable that promises the largest decrease grows
    from 0 until its slack is 0, then it becomes basic, or until a basic variable is 0, which then leaves. The
    objective decreases with every variable, so no basis comes back. Each pivot is one symmetric sweep, O(T^2), and
    most problems take about as many pivots as there are positive variables: O(T^3) in all, without a factorization.
    What rounding has left in x is removed by refinement at the end. If the conditions do not hold even then, which
    takes an almost singular basis, the tableau is rebuilt and the pivoting goes on, and at last some sweeps of
    coordinate descent take off what they can.

    Args:
      matrix: A, `[T, T]`.
      linear: b, `[T]`.
      guess: `[T]`; returned as it is if it satisfies the conditions up to rounding.
    """
    nothing = jnp.zeros(len(linear), bool)
    if guess is None:
        # The tableau of the empty basis is the matrix itself.
        first = _pivot(matrix, matrix, linear, jnp.zeros_like(linear), nothing)
    else:
        first = jnp.maximum(guess, 0), nothing

    def unfinished(state: tuple) -> Array:
        x, _, count = state
        return (count < REBUILDS + 1) & ~_is_optimal(matrix, linear, x)

    def again(state: tuple) -> tuple:
        x, basic, count = state
        new, basic = lax.cond(count < REBUILDS, rebuild, descend, x, basic)
        better = _violation(matrix, linear, new) < _violation(matrix, linear, x)
        return jnp.where(better, new, x), basic, count + 1

    def rebuild(x: Array, basic: Array) -> tuple[Array, Array]:
        table = _tableau(matrix, basic)
        return _pivot(table, matrix, linear, _refined(table, matrix, linear, x, basic), basic)

    def descend(x: Array, basic: Array) -> tuple[Array, Array]:
        return _descended(matrix, linear, x), basic

    return lax.while_loop(unfinished, again, (*first, 0))[0]


def rounding(matrix: Array, linear: Array, x: Array) -> Array:
    """Returns the size of what rounding may leave in Ax - b, a scalar."""
    return jnp.finfo(linear.dtype).eps * (jnp.max(jnp.abs(linear)) + jnp.sum(jnp.abs(x)))


def _violation(matrix: Array, linear: Array, x: Array) -> Array:
    """Returns by how much x >= 0 violates the conditions, at most."""
    return jnp.max(jnp.abs(jnp.minimum(x, matrix @ x - linear)))


def _is_optimal(matrix: Array, linear: Array, x: Array) -> Array:
    slack = matrix @ x - linear
    tolerance = 2 * SLACK * rounding(matrix, linear, x)
    return jnp.all(slack >= -tolerance) & jnp.all((slack <= tolerance) | (x == 0))


def _sweep(table: Array, k: Array) -> Array:
    """Returns the symmetric tableau after variable k has changed sides.

    With P the basic and R the other variables, it holds -inv(A_PP), inv(A_PP) A_PR and the Schur complement of A_PP.
    """
    row = table[k]
    pivot = row[k]
    at = jnp.arange(len(row)) == k
    swept = jnp.where(at, -1 / pivot, row / jnp.abs(pivot))
    table = table - row[:, None] * (row / pivot)[None, :]
    return jnp.where(at[:, None], swept[None, :], jnp.where(at[None, :], swept[:, None], table))


def _tableau(matrix: Array, basic: Array) -> Array:
    """Returns the tableau of a basis from scratch."""
    return lax.fori_loop(
        0, len(basic), lambda k, table: lax.cond(basic[k], lambda: _sweep(table, k), lambda: table), matrix
    )


def _pivot(table: Array, matrix: Array, linear: Array, x: Array, basic: Array) -> tuple[Array, Array]:
    """Returns the x and the basis at which no slack is negative, from a feasible x and the tableau of its basis."""
    size = len(linear)
    epsilon = jnp.finfo(linear.dtype).eps

    def cond(state: _Pivoting) -> Array:
        return (state.entering >= 0) & (state.count < 10 * size + 10)

    def body(state: _Pivoting) -> _Pivoting:
        k = state.entering
        row = state.table[k]
        at = jnp.arange(size) == k
        # While x_k grows, the basic variables change by -row and the other slacks by row.
        until_slack = -state.slack[k] / row[k]
        falling = state.basic & (row > 0)
        until_zero = jnp.where(falling, state.x / jnp.where(falling, row, 1), jnp.inf)
        leaving = jnp.argmin(until_zero)
        blocked = until_zero[leaving] < until_slack
        step = jnp.maximum(jnp.where(blocked, until_zero[leaving], until_slack), 0)
        pivot = jnp.where(blocked, leaving, k)
        moved = jnp.arange(size) == pivot
        x = jnp.where(at, state.x + step, jnp.where(state.basic, jnp.maximum(state.x - step * row, 0), 0))
        slack = jnp.where(state.basic, 0, state.slack + step * row)
        basic = state.basic ^ moved
        table = _sweep(state.table, pivot)
        x, slack = jnp.where(moved & blocked, 0, x), jnp.where(moved, 0, slack)
        entering = jnp.where(blocked, k, choose(table, x, slack, basic))
        return _Pivoting(table, x, slack, basic, entering, state.count + 1)

    def choose(table: Array, x: Array, slack: Array, basic: Array) -> Array:
        """Returns the variable of the largest decrease, slack^2 / distance^2 / 2, or -1 if none is to enter."""
        distance = jnp.diagonal(table)
        eligible = ~basic & (slack < -SLACK * rounding(matrix, linear, x)) & (distance > DEPENDENT * epsilon)
        decrease = jnp.where(eligible, slack**2 / jnp.where(eligible, distance, 1), 0)
        best = jnp.argmax(decrease)
        return jnp.where(eligible[best], best, -1)

    slack = jnp.where(basic, 0, matrix @ x - linear)
    start = _Pivoting(table, x, slack, basic, choose(table, x, slack, basic), jnp.array(0))
    end = lax.while_loop(cond, body, start)
    return _refined(end.table, matrix, linear, end.x, end.basic), end.basic


def _refined(table: Array, matrix: Array, linear: Array, x: Array, basic: Array) -> Array:
    """Returns x after iterative refinement of A_PP x_P = b_P with the inverse that the tableau holds, if it helps."""
    inverse = jnp.where(basic[:, None] & basic[None, :], -table, 0)
    for _ in range(2):
        new = jnp.where(basic, jnp.maximum(x + inverse @ (linear - matrix @ x), 0), 0)
        x = jnp.where(_violation(matrix, linear, new) < _violation(matrix, linear, x), new, x)
    return x


def _descended(matrix: Array, linear: Array, x: Array) -> Array:
    """Returns x after sweeps of coordinate descent (Hildreth), each step the minimum in one variable."""

    def step(count: int, state: tuple) -> tuple:
        x, slack = state
        k = count % len(x)
        change = jnp.maximum(x[k] - slack[k] / matrix[k, k], 0) - x[k]
        return x.at[k].add(change), slack + change * matrix[k]

    return lax.fori_loop(0, SWEEPS * len(x), step, (x, matrix @ x - linear))[0]
