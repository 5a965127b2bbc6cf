"""Convex quadratic programs with nonnegative variables, solved exactly by principal pivoting."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mmtl_jax.core.types import Array

# Times the machine epsilon and the size of the terms: a slack that rounding alone may leave.
SLACK = 0.5
# The same for a guess, which is then not solved any further.
GUESS = 4
# Times the machine epsilon: the ridge to begin with, above what rounding makes of an eigenvalue of 0.
RIDGE = 8
# By which the ridge grows if it is not.
GROWTH = 8
# Of refinement; most problems need 2 or 3.
MAX_ROUNDS = 30


class _Pivoting(NamedTuple):
    """The state of the iteration.

    Attributes:
      ridge: what the diagonal of the tableau has more than that of the matrix.
      table: the tableau of the basis, see `_sweep`.
      x: `[T]`, 0 outside the basis.
      gradient: `[T]`, of the objective with the ridge at x.
      basic: `[T]` bool.
      pivots: how many there were.
      best: the x with the least violation at the end of a round so far, and
      violation: how much that is.
      rounds: how many there were.
      finished: whether best is what is returned.
    """

    ridge: Array
    table: Array
    x: Array
    gradient: Array
    basic: Array
    pivots: Array
    best: Array
    violation: Array
    rounds: Array
    finished: Array


def nonnegative_quadratic(matrix: Array, linear: Array, guess: Array | None = None) -> Array:
    """Returns the minimiser over x >= 0 of x'Ax / 2 - b'x, in the Gramian's form of nonnegative least squares.

    A is positive semidefinite of unit scale (its diagonal about 1) and b lies in its range, so that the minimum
    exists; where A is singular, Ax is unique and x is one of the minimisers. Optimal is x if and only if

        x >= 0,    s = Ax - b >= 0,    x's = 0.

    The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23) with the factorization
    replaced by the tableau of principal pivoting (R. W. Cottle, The Principal Pivoting Method of Quadratic Programming,
    1968): the variable that promises the largest decrease becomes basic, x goes to the minimum in the basic variables
    or until one of them is 0, which then leaves. The objective decreases, so no basis comes back. Each pivot is one
    symmetric sweep, O(T^2), and most problems take about as many pivots as there are positive variables: O(T^3).

    The tableau is that of A + rI with a ridge r of 8 machine epsilons, so that columns that depend on each other do no
    harm; where a pivot shows that A has eigenvalues below -r, all begins anew with 8 times the ridge. What the ridge
    and rounding have done to x is undone by more rounds, each of which minimises

        x'Ax / 2 - b'x + r |x - z|^2 / 2    with z the x of the round before

    (the proximal point method: Rockafellar, SIAM J. Control Optim. 14, 1976). A round takes the gradient Ax - b anew
    and goes on with the same tableau, mostly without a pivot, as in iterative refinement. The last round is the one
    after which rounding alone accounts for the violation of the conditions, or that brings it down no further.

    Args:
      matrix: A, `[T, T]`.
      linear: b, `[T]`.
      guess: `[T]`; returned as it is if it satisfies the conditions up to rounding.
    """
    best = jnp.zeros_like(linear) if guess is None else jnp.maximum(guess, 0)
    violation = _violation(best, matrix @ best - linear)
    known = violation <= (SLACK if guess is None else GUESS) * rounding(matrix, linear, best)
    ridge = jnp.asarray(RIDGE * jnp.finfo(linear.dtype).eps, linear.dtype)
    first = _beginning(matrix, linear, ridge, best, violation, known)
    end = lax.while_loop(lambda state: ~state.finished, lambda state: _iterate(matrix, linear, state), first)
    return end.best


def rounding(matrix: Array, linear: Array, x: Array) -> Array:
    """Returns the size of what rounding may leave in Ax - b, a scalar."""
    return jnp.finfo(linear.dtype).eps * (jnp.max(jnp.abs(linear)) + jnp.sum(jnp.abs(x)))


def _violation(x: Array, slack: Array) -> Array:
    """Returns by how much x >= 0 violates the conditions, at most."""
    return jnp.max(jnp.abs(jnp.minimum(x, slack)))


def _beginning(matrix: Array, linear: Array, ridge: Array, best: Array, violation: Array, finished: Array) -> _Pivoting:
    """Returns the state of the empty basis, whose tableau is the matrix itself."""
    zeros, count = jnp.zeros_like(linear), jnp.array(0)
    table = matrix + ridge * jnp.eye(len(linear), dtype=matrix.dtype)
    return _Pivoting(ridge, table, zeros, -linear, zeros > 0, count, best, violation, count, finished)


def _iterate(matrix: Array, linear: Array, state: _Pivoting) -> _Pivoting:
    """Goes to the minimum in the basic variables and changes the basis, or ends the round, or begins anew."""
    size = len(linear)
    x, gradient, leaving = _to_the_minimum(state)
    eligible = ~state.basic & (gradient < -SLACK * rounding(matrix, linear, x))
    # The squared distances to the basic columns, which are no less than the ridge but for rounding; of the basic ones,
    # less the diagonal of an inverse.
    diagonal = jnp.diagonal(state.table)
    spoiled = jnp.any(jnp.where(state.basic, diagonal >= 0, eligible & (diagonal < state.ridge / 2)))
    # The variable of the largest decrease, gradient^2 / distance^2 / 2.
    entering = jnp.argmax(jnp.where(eligible, gradient**2 / jnp.maximum(diagonal, state.ridge / 2), 0))
    entering = jnp.where(eligible[entering], entering, -1)
    pivot = jnp.where(leaving >= 0, leaving, entering)
    pivot = jnp.where(state.pivots < 10 * size + 10, pivot, -1)
    swept = state._replace(
        table=lax.cond(pivot >= 0, lambda: _sweep(state.table, pivot), lambda: state.table),
        x=x,
        gradient=gradient,
        basic=state.basic ^ (jnp.arange(size) == pivot),
        pivots=state.pivots + 1,
    )

    def anew() -> _Pivoting:
        return _beginning(matrix, linear, GROWTH * state.ridge, state.best, state.violation, state.finished)

    case = jnp.where(spoiled & (state.ridge < 1), 2, pivot < 0)
    return lax.switch(case, [lambda: swept, lambda: _end_of_round(matrix, linear, swept), anew])


def _to_the_minimum(state: _Pivoting) -> tuple[Array, Array, Array]:
    """Returns x and the gradient at the minimum in the basic variables or where one is 0, and which then, or -1."""
    # Of the basic variables; for the others, by how much their gradients fall.
    step = state.table @ jnp.where(state.basic, state.gradient, 0)
    falling = state.basic & (step < 0)
    until_zero = jnp.where(falling, state.x / jnp.where(falling, -step, 1), jnp.inf)
    first = jnp.argmin(until_zero)
    leaving = jnp.where(until_zero[first] < 1, first, -1)
    length = jnp.minimum(until_zero[first], 1)
    stays = state.basic & (jnp.arange(len(step)) != leaving)
    x = jnp.where(stays, jnp.maximum(state.x + length * step, 0), 0)
    return x, state.gradient - length * jnp.where(state.basic, state.gradient, step), leaving


def _end_of_round(matrix: Array, linear: Array, state: _Pivoting) -> _Pivoting:
    """Takes the gradient anew, without the ridge, and keeps the better x; finished if there is nothing to gain."""
    gradient = matrix @ state.x - linear
    violation = _violation(state.x, gradient)
    better = violation < state.violation
    finished = violation <= SLACK * rounding(matrix, linear, state.x)
    finished |= (violation > 0.9 * state.violation) | (state.rounds >= MAX_ROUNDS)
    return state._replace(
        gradient=gradient,
        best=jnp.where(better, state.x, state.best),
        violation=jnp.where(better, violation, state.violation),
        rounds=state.rounds + 1,
        finished=finished,
    )


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
