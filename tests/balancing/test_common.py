"""What holds for every balancer."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Balancer, Signals
from mmtl_jax.core.tree import all_finite

TASKS = 3
STEPS = 4
RAMP = {'name': 'linear_schedule', 'init_value': 0.0, 'end_value': 1.0, 'transition_steps': 2}
# Arguments for the tasks 0, 1 and 2, from which those for fewer tasks are taken.
ARGUMENTS = {
    'equal': {},
    'fixed': {'weights': [0.5, 2.0, 1.0]},
    'scheduled': {'schedules': [1.0, RAMP, lambda step: 0.1 * step]},
    'uncertainty': {'learning_rate': 0.1, 'kinds': ['regression', 'classification', 'regression']},
}
FAMILY = [
    name
    for name in balancing.__all__
    if inspect.isfunction(getattr(balancing, name))
    and inspect.signature(getattr(balancing, name)).return_annotation is Balancer
]
ALL = jnp.ones(TASKS, bool)


def make(name: str, tasks: tuple[int, ...] = (0, 1, 2)) -> tuple[Balancer, object]:
    """Returns the balancer of the given tasks and its first state."""
    arguments = {
        key: [value[t] for t in tasks] if isinstance(value, list) else value for key, value in ARGUMENTS[name].items()
    }
    balancer = getattr(balancing, name)(**arguments)
    return balancer, balancer.init(len(tasks))


def losses(step: int) -> jax.Array:
    return jnp.array([0.6, 1.7, 2.5]) / (1 + step)


@pytest.mark.parametrize('name', FAMILY)
def test_weights_are_finite_and_states_are_arrays_of_one_shape(name):
    balancer, state = make(name)
    traces = []

    @jax.jit
    def update(signals, state):
        traces.append(1)
        return balancer.update(signals, state)

    for step in range(STEPS):
        signals = Signals(losses(step), ALL)
        weights, new = update(signals, state)
        assert weights.shape == (TASKS,)
        assert weights.dtype == signals.losses.dtype
        assert all_finite((weights, new))
        plain, plain_state = balancer.update(signals, state)
        # Fused arithmetic may differ in the last bits.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), (weights, new), (plain, plain_state)
        )
        assert jax.tree.structure(new) == jax.tree.structure(state)
        for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
            assert (before.shape, before.dtype) == (after.shape, after.dtype)
        state = new
    assert len(traces) == 1


@pytest.mark.parametrize('absent', [0, 1, 2])
@pytest.mark.parametrize('name', FAMILY)
def test_an_inactive_task_might_as_well_not_exist(name, absent):
    others = tuple(t for t in range(TASKS) if t != absent)
    (balancer, state), (smaller, smaller_state) = make(name), make(name, others)
    active = ALL.at[absent].set(False)
    for step in range(STEPS):
        weights, state = balancer.update(Signals(losses(step).at[absent].set(jnp.nan), active), state)
        expected, smaller_state = smaller.update(
            Signals(losses(step)[jnp.array(others)], jnp.ones(TASKS - 1, bool)), smaller_state
        )
        assert weights[absent] == 0
        # Vectors of another length go through other instructions, which may differ in the last bit.
        np.testing.assert_allclose(weights[jnp.array(others)], expected, rtol=1e-6)
    # Per-task parts of its state are as at the start.
    for first, last in zip(jax.tree.leaves(make(name)[1]), jax.tree.leaves(state), strict=True):
        if first.ndim:
            np.testing.assert_array_equal(last[absent], first[absent])


@pytest.mark.parametrize('name', FAMILY)
def test_no_active_task_at_all(name):
    balancer, state = make(name)
    weights, new = balancer.update(Signals(jnp.full(TASKS, jnp.nan), ~ALL), state)
    np.testing.assert_array_equal(weights, np.zeros(TASKS))
    assert all_finite(new)


@pytest.mark.parametrize('name', FAMILY)
def test_permuting_the_tasks_permutes_the_weights(name):
    order = (2, 0, 1)
    (balancer, state), (permuted, permuted_state) = make(name), make(name, order)
    for step in range(STEPS):
        weights, state = balancer.update(Signals(losses(step), ALL), state)
        other, permuted_state = permuted.update(Signals(losses(step)[jnp.array(order)], ALL), permuted_state)
        # The last bit may depend on the place in the vector.
        np.testing.assert_allclose(weights[jnp.array(order)], other, rtol=1e-6)


@pytest.mark.parametrize('name', FAMILY)
def test_declares_what_it_needs_and_what_heads_get(name):
    balancer, _ = make(name)
    assert balancer.needs in ('losses', 'gramian', 'jacobian')
    assert balancer.heads in ('own', 'weighted')


@pytest.mark.parametrize(
    'name', [name for name in FAMILY if any(isinstance(v, list) for v in ARGUMENTS[name].values())]
)
def test_wrong_number_of_tasks(name):
    balancer, _ = make(name)
    with pytest.raises(ValueError, match='one entry per task: got 3 for 2 tasks'):
        balancer.init(2)
