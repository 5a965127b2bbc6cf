"""GradDrop against the published implementation and its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing import graddrop
from mmtl_jax.balancing.sign_dropout import keep_one_sign
from tests.balancing.golden import JACOBIANS, goldens
from tests.balancing.replay import step


@pytest.mark.parametrize(('hyperparameters', 'leak'), [('leak=None', 0.0), ('leak=0.3', 0.3)])
def test_equals_the_published_implementation_for_the_same_random_numbers(hyperparameters, leak):
    with jax.enable_x64(True):
        for golden in goldens('torchjd08', 'GradDrop', hyperparameters):
            kept = keep_one_sign(jnp.asarray(JACOBIANS[golden.target]), jnp.asarray(golden.arrays['U']), leak)
            np.testing.assert_allclose(np.sum(kept, axis=0), golden.arrays['agg'], rtol=1e-12, atol=1e-14)


def test_keeps_the_positive_ones_as_often_as_their_share():
    # In every coordinate: P = (1 + (3 - 1) / (3 + 1)) / 2 = 3 / 4.
    rows = {'a': np.stack([np.full((40, 50), 3.0), np.full((40, 50), -1.0)]), 'b': np.array([[3.0], [-1.0]])}
    direction, weights, _ = step(graddrop(), rows)
    assert set(np.unique(direction['a'])) == {-1.0, 3.0}
    # 0.05 are five standard deviations of the share among 2000.
    assert np.mean(direction['a'] == 3.0) == pytest.approx(0.75, abs=0.05)
    assert weights.rows['a'].shape == (2, 40, 50)


def test_what_all_tasks_agree_on_is_kept_whole():
    rows = np.abs(JACOBIANS['t3_d10']) * np.sign(JACOBIANS['t3_d10'][:1])
    direction, _, _ = step(graddrop(), rows)
    np.testing.assert_allclose(direction, rows.sum(axis=0), rtol=1e-6)


def test_a_leak_of_one_is_the_sum_and_each_task_has_its_own():
    rows = np.array(JACOBIANS['t3_d10'])
    direction, _, _ = step(graddrop(1.0), rows)
    np.testing.assert_allclose(direction, rows.sum(axis=0), rtol=1e-5, atol=1e-6)
    _, weights, _ = step(graddrop([1.0, 0.5, 0.0]), rows)
    shares = np.array(weights.rows) / rows
    for share, allowed in zip(shares, ({1.0}, {0.5, 1.0}, {0.0, 1.0}), strict=True):
        assert set(share) == allowed


def test_draws_anew_in_every_step_whatever_tasks_are_active():
    rows = np.array(JACOBIANS['t3_d50_conflict'])
    first, _, state = step(graddrop(seed=5), rows)
    second, _, _ = step(graddrop(seed=5), rows, state=state)
    assert np.any(first != second)
    absent = np.insert(rows, 1, np.nan, axis=0)
    same, _, _ = step(graddrop(seed=5), absent)
    np.testing.assert_allclose(same, first, rtol=1e-6)


@pytest.mark.parametrize('leak', [-0.1, 1.1, [0.5, 2.0], float('nan')])
def test_refuses_a_leak_that_is_no_share(leak):
    with pytest.raises(ValueError, match='graddrop needs a leak between 0 and 1, got'):
        graddrop(leak)
