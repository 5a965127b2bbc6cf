"""Aligned-MTL against published implementations and the singular value decomposition."""

import numpy as np
import pytest

from mmtl_jax.balancing import aligned_mtl
from tests.balancing.golden import JACOBIANS, goldens
from tests.balancing.replay import assert_matrices, assert_sequence, on_matrices, on_sequence, step
from tests.balancing.test_equiangular import PREFERENCES


@pytest.mark.parametrize('scale', ['min', 'median', 'rmse'])
def test_is_t_times_the_mean_of_torchjd(scale):
    got = on_matrices(aligned_mtl(scale))
    means = {name: direction / len(JACOBIANS[name]) for name, direction in got.items()}
    assert_matrices(means, 'torchjd08', 'AlignedMTL', f'scale_mode={scale}', rtol=1e-12)


def test_equals_libmtl():
    assert_matrices(on_matrices(aligned_mtl()), 'libmtl', 'Aligned_MTL', rtol=1e-12)
    assert_sequence(on_sequence(aligned_mtl()), 'libmtl', 'Aligned_MTL', '', rtol=1e-12)


@pytest.mark.parametrize('num_tasks', PREFERENCES)
def test_equals_torchjd_with_a_preference(num_tasks):
    got = on_matrices(aligned_mtl(preference=PREFERENCES[num_tasks] + [1.0] * (5 - num_tasks)))
    others = [name for name, rows in JACOBIANS.items() if len(rows) != num_tasks]
    assert_matrices(got, 'torchjd08', 'AlignedMTL', 'pref,scale_mode=min', rtol=1e-12, without=others)


@pytest.mark.parametrize('scale', ['min', 'median', 'rmse'])
def test_the_rank_tolerance_is_what_the_published_implementation_takes_from_another_dtype(scale):
    name = 't3_d30_scale1e4'
    (golden,) = goldens('torchjd08', 'AlignedMTL', f'scale_mode={scale},torch default dtype float32', name)
    got = {}
    for tolerance in (None, 3 * np.finfo(np.float32).eps):
        got[tolerance], _, _ = step(aligned_mtl(scale, rank_tolerance=tolerance), JACOBIANS[name])
    direction = got.pop(3 * np.finfo(np.float32).eps) / 3
    np.testing.assert_allclose(direction, golden.arrays['agg'], rtol=1e-9, atol=1e-12)
    # And it matters.
    assert np.linalg.norm(direction - got[None] / 3) > 0.05 * np.linalg.norm(direction)


def test_gives_the_orthogonal_gradients_of_the_polar_decomposition():
    rows = np.random.default_rng(1).normal(size=(4, 10)) * np.array([[0.01], [1.0], [30.0], [5.0]])
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    for scale, size in (('min', singular[-1]), ('median', singular[2]), ('rmse', np.sqrt(np.mean(singular**2)))):
        direction, _, _ = step(aligned_mtl(scale), rows)
        np.testing.assert_allclose(direction, size * (left @ right).sum(axis=0), rtol=1e-7)


@pytest.mark.parametrize('scale', ['min', 'median', 'rmse'])
def test_degenerate_gradients(scale):
    gradient = np.array([1.0, -2.0, 0.5])
    for rows, expected in (
        ([gradient, gradient], [1, 1]),
        ([gradient, -gradient], [0, 0]),
        ([gradient, 0 * gradient], [1, 0]),
        ([0 * gradient, 0 * gradient], [0, 0]),
    ):
        _, weights, _ = step(aligned_mtl(scale), np.stack(rows))
        np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"scales \['min', 'median', 'rmse'\], got 'max'"):
        aligned_mtl('max')
    with pytest.raises(ValueError, match=r'rank_tolerance in \[0, 1\), got -0.1'):
        aligned_mtl(rank_tolerance=-0.1)
    with pytest.raises(ValueError, match='aligned_mtl needs positive preferences'):
        aligned_mtl(preference=[1.0, 0.0])
