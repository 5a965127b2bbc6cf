"""Quadratic programs over the orthant: by hand, by enumeration of all supports, and from a guess."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing.nonnegative import nonnegative_quadratic

solve = jax.jit(nonnegative_quadratic)


def enumerated(matrix, linear):
    """Returns the least objective over all supports whose unconstrained minimum is feasible."""
    best = 0.0
    for size in range(1, len(linear) + 1):
        for support in map(list, itertools.combinations(range(len(linear)), size)):
            x = np.linalg.lstsq(matrix[np.ix_(support, support)], linear[support], rcond=None)[0]
            if np.all(x >= -1e-12):
                best = min(best, -linear[support] @ x / 2)
    return best


@pytest.mark.parametrize('rank', [2, 4, 8])
def test_equals_the_best_of_all_supports(rank):
    random = np.random.default_rng(rank)
    with jax.enable_x64(True):
        for _ in range(8):
            rows = random.normal(size=(5, rank))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            matrix, linear = rows @ rows.T, rows @ random.normal(size=rank)
            x = np.asarray(solve(matrix, linear))
            slack = matrix @ x - linear
            assert x.min() >= 0
            assert slack.min() >= -1e-13
            assert np.abs(x @ slack) <= 1e-13
            np.testing.assert_allclose(x @ matrix @ x / 2 - linear @ x, enumerated(matrix, linear), rtol=1e-10)


def test_a_variable_leaves_again():
    # Alone, x_0 is the best to begin with; with x_1 and x_2 it is 0.
    rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    x = solve(rows @ rows.T, rows @ np.array([1.6, 0.0]) - np.array([0.2, 0.0, 0.0]))
    np.testing.assert_allclose(x, [0.0, 1.0, 1.0], atol=1e-6)


def test_a_good_guess_is_kept_and_a_bad_one_is_not():
    matrix, linear = jnp.array([[1.0, 0.5], [0.5, 1.0]]), jnp.array([1.0, 1.0])
    guess = jnp.array([2 / 3, 2 / 3]) * (1 + 1e-7)
    np.testing.assert_array_equal(nonnegative_quadratic(matrix, linear, guess), guess)
    np.testing.assert_allclose(nonnegative_quadratic(matrix, linear, jnp.array([9.0, -1.0])), guess, rtol=1e-6)


def test_equal_columns_share_nothing_but_the_minimum():
    x = solve(jnp.ones((4, 4)), jnp.ones(4))
    np.testing.assert_allclose(jnp.sum(x), 1.0, rtol=1e-6)
    assert jnp.all(x >= 0)


def test_nothing_to_gain_is_zero():
    np.testing.assert_array_equal(solve(jnp.eye(3), jnp.array([0.0, -1.0, -2.0])), np.zeros(3))


@pytest.mark.parametrize('noise', [0, 8, 64])
def test_rows_that_cancel_in_a_gramian_of_noise(noise):
    # 40 rows in 10 dimensions: a combination with weights of at least 1 is 0. The noise makes eigenvalues negative.
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 10))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    errors = np.finfo(np.float32).eps * noise * np.tril(random.normal(size=(40, 40)), -1)
    matrix = jnp.asarray(rows @ rows.T + errors + errors.T, jnp.float32)
    x = np.asarray(solve(matrix, -matrix @ jnp.ones(40)), np.float64)
    assert x.min() >= 0
    assert np.linalg.norm((1 + x) @ rows) <= 4 * np.finfo(np.float32).eps * (1 + noise) * np.sum(1 + x)
