"""Random Jacobians of every awkward kind, and solutions by SciPy's nonnegative least squares on the Jacobian itself."""

import numpy as np
from scipy.optimize import brentq, nnls

KINDS = ('wide', 'narrow', 'conflicting', 'low rank', 'zero row', 'equal rows', 'opposite rows', 'sum of 0')
MAX_TASKS, WIDTH = 40, 200


def jacobian(random: np.random.Generator, kind: str, num_tasks: int) -> np.ndarray:
    """Returns `[num_tasks, d]`; half of them have rows of lengths from 1e-3 to 1e3."""
    wide = int(random.integers(2 * num_tasks + 2, 4 * num_tasks + 10))
    rows = random.normal(size=(num_tasks, max(2, num_tasks // 2) if kind == 'narrow' else wide))
    i, j = random.integers(0, num_tasks, 2)
    if kind == 'conflicting':
        rows = rows - random.uniform(0.5, 1.0) * rows.mean(axis=0)
    elif kind == 'low rank':
        rank = int(random.integers(1, max(2, num_tasks)))
        rows = random.normal(size=(num_tasks, rank)) @ random.normal(size=(rank, wide))
    elif kind == 'zero row':
        rows[i] = 0
    elif kind == 'equal rows':
        rows[i] = rows[j]
    elif kind == 'opposite rows' and i != j:
        rows[i] = -rows[j]
    elif kind == 'sum of 0':
        rows[i] -= rows.sum(axis=0)
    scales = 10 ** random.uniform(-3, 3, num_tasks) if random.random() < 0.5 else np.ones(num_tasks)
    return rows * scales[:, None]


def jacobians(count: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Returns Jacobians of all kinds, for 1 to 40 tasks."""
    random = np.random.default_rng(seed)
    kinds = [KINDS[k % len(KINDS)] for k in range(count)]
    return [
        (kind, jacobian(random, kind, int(random.integers(1, (8, MAX_TASKS + 1)[k % 2]))))
        for k, kind in enumerate(kinds)
    ]


def padded(matrices: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrices in one array `[N, MAX_TASKS, WIDTH]`, and which tasks are there `[N, MAX_TASKS]`."""
    rows = np.zeros((len(matrices), MAX_TASKS, WIDTH))
    active = np.zeros((len(matrices), MAX_TASKS), bool)
    for k, matrix in enumerate(matrices):
        rows[k, : matrix.shape[0], : matrix.shape[1]] = matrix
        active[k, : len(matrix)] = True
    return rows, active


def unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lengths of the rows that are not zero, and these rows at length 1."""
    lengths = np.linalg.norm(rows, axis=1)
    return lengths[lengths > 0], rows[lengths > 0] / lengths[lengths > 0][:, None]


def least_norm(rows: np.ndarray) -> np.ndarray:
    """Returns the point of least norm in the convex hull of the rows."""
    lengths, units = unit(rows)
    if len(units) < len(rows):
        return np.zeros(rows.shape[1])
    ratios = lengths.min() / lengths
    y, _ = nnls(np.vstack([units.T, ratios]), np.append(np.zeros(rows.shape[1]), 1.0), maxiter=4000)
    return units.T @ y / (ratios @ y) * lengths.min()


def dual_projection(rows: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Returns the projection of a point onto {d: rows @ d >= 0}."""
    _, units = unit(rows)
    size = np.linalg.norm(point)
    if size == 0 or not len(units):
        return point
    return point + size * units.T @ nnls(units.T, -point / size, maxiter=4000)[0]


def upgrad(rows: np.ndarray) -> np.ndarray:
    """Returns the mean of the projections of the rows."""
    return np.mean([dual_projection(rows, row) for row in rows], axis=0)


def is_stationary(rows: np.ndarray) -> bool:
    """Returns whether no direction is a gain for all the rows that are not zero."""
    _, units = unit(rows)
    return len(units) > 0 and np.linalg.norm(least_norm(units)) < 1e-7


def cagrad(rows: np.ndarray, c: float) -> np.ndarray:
    """Returns CAGrad's direction without rescaling: least-distance programs, and bisection for their level."""
    mean, (lengths, units) = rows.mean(axis=0), unit(rows)
    size = np.linalg.norm(mean)
    if size < 1e-13 * np.linalg.norm(rows) or not len(units):
        return mean
    ratios = lengths.min() / lengths

    def nearest(level: float) -> np.ndarray:
        """Returns the shortest z with units @ (mean / size + z) >= level * ratios (Lawson and Hanson, chapter 23)."""
        needed = level * ratios - units @ mean / size
        y, _ = nnls(np.vstack([units.T, needed]), np.append(np.zeros(rows.shape[1]), 1.0), maxiter=4000)
        *z, last = np.append(np.zeros(rows.shape[1]), 1.0) - np.vstack([units.T, needed]) @ y
        return np.array(z) / -last if last else np.full(rows.shape[1], np.inf)

    def beyond(level: float) -> float:
        return np.linalg.norm(nearest(level)) - c

    capped = len(units) < len(rows) or is_stationary(rows)
    if capped:
        harmless = dual_projection(rows, mean)
        if np.linalg.norm(harmless - mean) <= c * size * (1 + 1e-12):
            return harmless
    low = (units @ mean / size / ratios).min() - 1e-3
    z = nearest(brentq(beyond, low, 0 if capped else 2 * (1 + c), xtol=1e-300, rtol=1e-15, maxiter=500))
    return mean + size * c * z / np.linalg.norm(z)
