"""Dynamic task prioritization."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals

ALL = jnp.ones(3, bool)


def test_weights_are_the_focal_loss_of_the_averaged_indicator():
    balancer = balancing.dynamic_task_priority([0.0, 1.0, 2.0], decay=0.75)
    state = balancer.init(3)
    first, state = balancer.update(Signals(jnp.array([0.4, 0.4, 0.4]), ALL), state)
    np.testing.assert_allclose(first, 0.4 * (1 - np.exp(-0.4)) ** np.array([0, 1, 2]), rtol=1e-5)
    second, _ = balancer.update(Signals(jnp.array([0.2, 0.2, 0.2]), ALL), state)
    kpi = 0.75 * np.exp(-0.4) + 0.25 * np.exp(-0.2)
    np.testing.assert_allclose(second, -np.log(kpi) * (1 - kpi) ** np.array([0, 1, 2]), rtol=1e-5)


def test_hard_tasks_come_first_and_solved_ones_last():
    balancer = balancing.dynamic_task_priority()
    weights, _ = balancer.update(Signals(jnp.array([2.0, 0.1, 0.0]), ALL), balancer.init(3))
    assert weights[0] > 10 * weights[1] > weights[2] == 0
    extreme, _ = balancer.update(Signals(jnp.array([1e9, -3.0, 90.0]), ALL), balancer.init(3))
    np.testing.assert_allclose(extreme, [87.3, 0, 87.3], rtol=1e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match='at least 0, got -1'):
        balancing.dynamic_task_priority(-1)
    with pytest.raises(ValueError, match=r'must be in \[0, 1\), got 1'):
        balancing.dynamic_task_priority(decay=1.0)
    with pytest.raises(ValueError, match='gamma needs one entry per task: got 2 for 3 tasks'):
        balancing.dynamic_task_priority([1.0, 2.0]).init(3)
