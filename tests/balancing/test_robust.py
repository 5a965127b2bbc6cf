"""Krum and the trimmed mean against the published implementation and their definitions."""

import numpy as np
import pytest

from mmtl_jax.balancing import krum, trimmed_mean
from tests.balancing.golden import JACOBIANS
from tests.balancing.replay import assert_matrices, on_matrices, step, steps


@pytest.mark.parametrize('num_selected', [1, 2])
def test_krum_equals_the_published_implementation(num_selected):
    got = on_matrices(krum(1, num_selected))
    assert_matrices(got, 'torchjd08', 'Krum', f'n_byzantine=1,n_selected={num_selected}', rtol=1e-14)


def test_krum_selects_by_the_distances_to_the_nearest_others():
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 8, 5))
    _, weights = steps(krum(2, 3), rows)
    for matrix, got in zip(rows, weights, strict=True):
        distances = np.linalg.norm(matrix[:, None] - matrix[None], axis=2)
        # Eight tasks, two of them wrong: the four nearest others, after the distance to itself.
        scores = np.sort(distances, axis=1)[:, 1:5].sum(axis=1)
        assert set(np.flatnonzero(got)) == set(np.argsort(scores)[:3])
        np.testing.assert_allclose(got[got > 0], np.full(3, 1 / 3), rtol=1e-6)


def test_krum_leaves_out_the_outlier():
    rows = np.array([[1.0, 1.0], [1.1, 0.9], [-1e6, 1e6], [0.9, 1.0]])
    _, weights, _ = step(krum(1, 3), rows)
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_krum_with_few_active_tasks():
    rows = np.array(JACOBIANS['t5_d4_rankdef'])
    balancer = krum(1, 3)
    for num_active in range(6):
        some = rows.copy()
        some[num_active:] = np.nan
        _, weights, _ = step(balancer, some)
        selected = min(num_active, 3)
        assert np.count_nonzero(weights) == selected
        assert np.sum(weights) == pytest.approx(float(selected > 0))


@pytest.mark.parametrize('num_trimmed', [0, 1, 2])
def test_trimmed_mean_is_the_mean_of_the_middle(num_trimmed):
    rows = np.array(JACOBIANS['t5_d4_rankdef'])
    # Ties in a coordinate.
    rows[:3, 0] = 0.5
    balancer = trimmed_mean(num_trimmed)
    for num_active in range(1, 6):
        some = rows.copy()
        some[num_active:] = np.nan
        direction, weights, _ = step(balancer, some)
        trimmed = min(num_trimmed, (num_active - 1) // 2)
        middle = np.sort(rows[:num_active], axis=0)[trimmed : num_active - trimmed]
        np.testing.assert_allclose(direction, middle.mean(axis=0), rtol=1e-5, atol=1e-7)
        assert not np.any(weights.rows[num_active:])


def test_trimmed_mean_equals_the_published_implementation():
    assert_matrices(on_matrices(trimmed_mean(1)), 'torchjd08', 'TrimmedMean', 'trim_number=1', rtol=1e-14)


def test_too_few_tasks():
    with pytest.raises(ValueError, match='num_byzantine=1 and num_selected=1 needs at least 4 tasks, got 3'):
        krum(1).init(3)
    with pytest.raises(ValueError, match='needs at least 5 tasks, got 4'):
        krum(0, 5).init(4)
    with pytest.raises(ValueError, match='num_trimmed=2 needs at least 5 tasks, got 4'):
        trimmed_mean(2).init(4)


def test_bad_arguments():
    with pytest.raises(ValueError, match='num_byzantine >= 0 and num_selected >= 1, got -1 and 1'):
        krum(-1)
    with pytest.raises(ValueError, match='num_byzantine >= 0 and num_selected >= 1, got 1 and 0'):
        krum(1, 0)
    with pytest.raises(ValueError, match='num_trimmed >= 0, got -1'):
        trimmed_mean(-1)
