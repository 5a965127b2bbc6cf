"""ExcessMTL against the published implementation and by hand."""

import numpy as np
import pytest

from mmtl_jax.balancing import excess_mtl
from tests.balancing.golden import SEQUENCE
from tests.balancing.replay import assert_sequence, on_sequence, start, step


@pytest.mark.parametrize(('step_size', 'hyperparameters'), [(0.01, '0.01 (default)'), (0.5, '0.5')])
def test_follows_the_published_trajectory(step_size, hyperparameters):
    # Their 1e-7 beside the sum of squares.
    got = on_sequence(excess_mtl(step_size))
    assert_sequence(got, 'libmtl', 'ExcessMTL', f'robust_step_size={hyperparameters}', rtol=1e-6)


def test_by_hand():
    sums, weights, expected = np.zeros((3, 12)), np.ones(3), []
    for k, rows in enumerate(SEQUENCE['J']):
        sums += rows**2
        risks = np.sum(rows**2 / np.sqrt(sums), axis=1)
        if k == 0:
            first = risks
        else:
            weights = weights * np.exp(0.3 * risks / first)
            weights *= 3 / weights.sum()
        expected.append(weights @ rows)
    np.testing.assert_allclose(on_sequence(excess_mtl(0.3)), expected, rtol=1e-10, atol=1e-12)


def test_the_risk_of_a_task_is_judged_from_its_first_gradient_on():
    balancer = excess_mtl(0.5)
    rows = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]])
    state = start(balancer, 3, 2)
    for _ in range(3):
        _, weights, state = step(balancer, rows, state=state)
    assert state.first[1] == 0
    assert weights[0] == weights[2] > weights[1]
    rows[1] = 5.0
    _, _, after = step(balancer, rows, state=state)
    assert after.first[1] == 10


def test_tasks_that_take_turns_keep_their_weights():
    balancer = excess_mtl(0.5)
    rows = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 1.0]])
    state = start(balancer, 3, 2)._replace(logits=np.log(np.array([2.0, 0.7, 0.3])))
    alone = np.where(np.arange(3)[:, None] == 1, rows, np.nan)
    for _ in range(3):
        _, weights, state = step(balancer, alone, state=state)
        np.testing.assert_allclose(weights, [0, 1, 0])
    np.testing.assert_allclose(np.exp(state.logits), [2.0, 0.7, 0.3], rtol=1e-6)


def test_weights_stay_bounded_however_much_a_risk_grows():
    balancer = excess_mtl(1.0)
    rows = np.array([[1e-6, 0.0], [1.0, 1.0]])
    state = start(balancer, 2, 2)
    for scale in (1.0, 1e12, 1e12):
        _, weights, state = step(balancer, np.array([[scale], [1.0]]) * rows, state=state)
    np.testing.assert_allclose(weights, [2, 0], atol=1e-6)
    assert np.all(np.isfinite(state.logits))


def test_bad_arguments():
    with pytest.raises(ValueError, match='excess_mtl needs a step_size of at least 0, got -1'):
        excess_mtl(-1)
