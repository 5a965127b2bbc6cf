"""What holds for every balancer: one row in `ARGUMENTS` for each, and what it cannot promise in the sets below it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Balancer, Rows
from mmtl_jax.core.tree import all_finite

TASKS, WIDTH, STEPS = 4, 6, 4
ALL = tuple(range(TASKS))
RAMP = {'name': 'linear_schedule', 'init_value': 0.0, 'end_value': 1.0, 'transition_steps': 2}
# A list holds one value for each task.
ARGUMENTS = {
    'equal': {},
    'fixed': {'weights': [0.5, 2.0, 1.0, 0.1]},
    'scheduled': {'schedules': [1.0, RAMP, lambda step: 0.1 * step, 2.0]},
    'uncertainty': {'learning_rate': 0.1, 'kinds': ['regression', 'classification', 'regression', 'regression']},
    'random_loss_weighting': {},
    'dwa': {'window': 1},
    'gls': {},
    'stch': {'weights': [0.2, 0.5, 0.3, 0.1], 'reference': [0.0, 0.1, 0.0, -0.1]},
    'cosmos': {'weights': [0.2, 0.5, 0.3, 0.1]},
    'pbi': {'weights': [0.2, 0.5, 0.3, 0.1], 'reference': 0.01},
    'famo': {'min_losses': [-0.1, 0.0, 0.0, -1.0]},
    'imtl_l': {'learning_rate': 0.1},
    'dynamic_task_priority': {'gamma': [0.0, 1.0, 1.0, 2.0]},
    'gradient_blend': {'groups': ['a', 'b', 'a', 'a']},
    'pcgrad': {},
    'gradvac': {},
    'imtl_g': {},
    'imtl': {'learning_rate': 0.1},
    'conflict_free': {'preference': [1.0, 0.5, 2.0, 1.5]},
    'aligned_mtl': {'preference': [1.0, 0.5, 2.0, 1.5]},
    'graddrop': {'leak': [0.0, 0.2, 0.5, 1.0]},
    'random': {},
    'krum': {'num_byzantine': 0},
    'trimmed_mean': {},
    'gradnorm': {'alpha': 0.5},
    'moco': {},
    'db_mtl': {},
    'excess_mtl': {},
    'modo': {},
    'sdmgrad': {},
    'mgda': {'normalization': 'loss'},
    'upgrad': {},
    'dual_projection': {'preference': [0.1, 0.4, 0.3, 0.2]},
    'cagrad': {},
    'nash_mtl': {},
    'fairgrad': {'alpha': 2.0, 'max_norm': None},
    'ema': {'balancer': {'name': 'imtl_l', 'learning_rate': 0.1}},
    'every': {'balancer': {'name': 'gls'}, 'steps': 2},
    'clip_norm': {'balancer': 'equal', 'max_norm': 0.5},
    'per_group': {'balancer': balancing.from_weighting(lambda gramian, active: jnp.ones_like(active, jnp.float32))},
    'from_weighting': {'weighting': lambda gramian, active: 1.0 + (jnp.diagonal(gramian) >= jnp.max(gramian))},
}
# They draw in the order of the tasks.
ORDERED = {'pcgrad', 'gradvac', 'graddrop', 'random', 'random_loss_weighting'}
# The direction for a Jacobian times c is that times c to this power; None where an absolute size is part of the method.
DEGREES = {'clip_norm': None, 'nash_mtl': 0, 'fairgrad': -1 / 3}
# What a task that is alone gets is its gradient times this at the first step; None where it depends on its size.
ALONE = {
    'mgda': None,
    'dual_projection': 0.1,
    'cagrad': 1.2,
    'nash_mtl': None,
    'fairgrad': None,
    'fixed': 0.5,
    'uncertainty': 0.5,
    'from_weighting': 2.0,
    'stch': 0.2,
    'cosmos': 0.2,
    'dynamic_task_priority': None,
    'clip_norm': None,
    'moco': 0.5,
    'db_mtl': None,
}

FAMILY = [
    name
    for name in balancing.__all__
    if inspect.isfunction(getattr(balancing, name))
    and inspect.signature(getattr(balancing, name)).return_annotation is Balancer
]
# The direction is against no task, whatever the gradients.
NON_CONFLICTING = {'mgda', 'upgrad', 'dual_projection', 'nash_mtl', 'fairgrad'}
# It is 0 where the tasks' gradients, each with a positive weight, sum to 0.
STATIONARY = {'mgda', 'upgrad', 'dual_projection'}

each = pytest.mark.parametrize('name', FAMILY)


class Run:
    """A balancer of some of the tasks, compiled once, from its first step on."""

    def __init__(self, name: str, tasks: tuple[int, ...]):
        given = ARGUMENTS[name]
        arguments = {key: [v[t] for t in tasks] if isinstance(v, list) else v for key, v in given.items()}
        self.balancer = getattr(balancing, name)(**arguments)
        self.tasks = list(tasks)
        self.traces = 0
        self.splits = self.balancer.splits
        gradient = jax.ShapeDtypeStruct((WIDTH,), jnp.float32)
        extra = (gradient,) if self.balancer.needs == 'jacobian' else ()
        self.start = self.balancer.init(len(tasks), *extra)
        self._step = jax.jit(self._untraced)

    def _untraced(self, jacobian, losses, after, state):
        self.traces += 1
        direction, weights, state = balancing.aggregate(self.balancer, jacobian, losses, state)
        if self.balancer.after is not None:
            state = self.balancer.after(after, jnp.isfinite(losses), state)
        if self.balancer.validated is not None:
            state = self.balancer.validated(after, jnp.isfinite(losses), state)
        return direction, weights, state

    def __call__(self, jacobian, losses, state=None):
        """Takes a step with `[TASKS, WIDTH]` gradients and `[TASKS]` losses, of which it picks its tasks."""
        jacobian, losses = jacobian[self.tasks], losses[self.tasks]
        after = losses * np.linspace(0.7, 1.1, TASKS, dtype=np.float32)[self.tasks]
        if self.splits > 1:
            # The last split has a different gradient, so that no two splits are the same.
            jacobian = np.stack([jacobian] * (self.splits - 1) + [jacobian[:, ::-1]])
            losses = np.stack([losses] * self.splits)
        return self._step(jacobian, losses, after, self.start if state is None else state)

    def steps(self, jacobians, losses):
        """Takes a step for each of the given; returns all directions, all weights and the last state."""
        state, directions, weights = self.start, [], []
        for jacobian, loss in zip(jacobians, losses, strict=True):
            direction, weight, state = self(jacobian, loss, state)
            directions.append(direction)
            weights.append(weight)
        return np.array(directions), weights, state


@functools.cache
def run(name: str, tasks: tuple[int, ...] = ALL) -> Run:
    return Run(name, tasks)


def data(seed: int = 0):
    """Returns Jacobians `[STEPS, TASKS, WIDTH]` and positive losses `[STEPS, TASKS]` that fall."""
    random = np.random.default_rng(seed)
    jacobians = random.normal(size=(STEPS, TASKS, WIDTH)).astype(np.float32)
    losses = random.uniform(0.3, 3.0, TASKS) / np.arange(1, STEPS + 1)[:, None] ** random.uniform(0.2, 0.6, TASKS)
    return jacobians, losses.astype(np.float32)


def assert_close(got, expected, rtol, message=''):
    """Compares vectors by the norm of each row."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    norms = np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_array_less(np.abs(got - expected), np.broadcast_to(rtol * norms + 1e-30, got.shape), message)


def of_task(weights, task):
    """Returns what the weights say of a task: a number, one for each split, or its row."""
    if isinstance(weights, Rows):
        return weights.weights[task] * weights.rows[task]
    return weights[..., task]


@each
def test_declares_what_it_needs_and_what_heads_get(name):
    balancer = run(name).balancer
    assert balancer.needs in ('losses', 'gramian', 'jacobian')
    assert balancer.heads in ('own', 'weighted')
    assert balancer.splits >= 1


@each
def test_finite_and_compiled_once_and_the_state_keeps_its_shape(name):
    made = run(name)
    jacobians, losses = data()
    directions, weights, state = made.steps(jacobians, losses)
    assert directions.shape == (STEPS, WIDTH)
    assert all_finite((directions, weights, state))
    assert np.any(directions[0])
    if not isinstance(weights[0], Rows):
        assert weights[0].shape == ((TASKS,) if made.splits == 1 else (made.splits, TASKS))
        assert weights[0].dtype == jnp.float32
        if made.splits == 1:
            combined = [np.asarray(w, np.float64) @ jacobian for w, jacobian in zip(weights, jacobians, strict=True)]
            assert_close(directions, combined, 1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(made.start)
    for before, after in zip(jax.tree.leaves(made.start), jax.tree.leaves(state), strict=True):
        assert isinstance(before, jax.Array)
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
    assert made.traces == 1


@each
def test_an_inactive_task_might_as_well_not_exist(name):
    absent, others = 1, (0, 2, 3)
    made = run(name)
    jacobians, losses = data(1)
    jacobians[:, absent], losses[:, absent] = np.nan, np.nan
    directions, weights, state = made.steps(jacobians, losses)
    assert np.all(np.isfinite(directions))
    for weight in weights:
        assert not np.any(of_task(weight, absent))
    smaller = run(name, others)
    expected, _, smaller_state = smaller.steps(jacobians, losses)
    # Vectors of another length go through other instructions, which differ in the last bits.
    assert_close(directions, expected, 1e-5)
    leaves = zip(*map(jax.tree.leaves, (state, made.start, smaller_state)), strict=True)
    for last, first, small in leaves:
        axes = [axis for axis in range(last.ndim) if last.shape[axis] != small.shape[axis]]
        kept = last
        for axis in axes:
            kept = jnp.take(kept, jnp.array(others), axis)
            # To the bit as it was.
            np.testing.assert_array_equal(jnp.take(last, absent, axis), jnp.take(first, absent, axis))
        np.testing.assert_allclose(kept, small, rtol=1e-4, atol=1e-5)


@each
def test_no_active_task_at_all(name):
    nothing = np.full((TASKS, WIDTH), np.nan, np.float32)
    direction, weights, state = run(name)(nothing, np.full(TASKS, np.nan, np.float32))
    np.testing.assert_array_equal(direction, np.zeros(WIDTH))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(weights))
    assert all_finite(state)


@each
def test_permuting_the_tasks_changes_nothing(name):
    if name in ORDERED:
        pytest.skip('draws in the order of the tasks')
    order = (2, 0, 3, 1)
    jacobians, losses = data(2)
    expected, weights, _ = run(name).steps(jacobians, losses)
    if any(isinstance(value, list) for value in ARGUMENTS[name].values()):
        directions, permuted, _ = run(name, order).steps(jacobians, losses)
    else:
        directions, permuted, _ = run(name).steps(jacobians[:, order], losses[:, order])
    # Sums in another order differ in the last bits; solvers stop there.
    assert_close(directions, expected, 1e-4)
    for place, task in enumerate(order):
        for got, wanted in zip(permuted, weights, strict=True):
            got, wanted = of_task(got, place), of_task(wanted, task)
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.max(np.abs(jax.tree.leaves(weights)[0])))


@each
@pytest.mark.parametrize('factor', [1e-6, 1e6])
def test_a_scaled_jacobian_scales_the_direction(name, factor):
    degree = DEGREES.get(name, 1)
    if degree is None:
        pytest.skip('an absolute size is part of the method')
    jacobians, losses = data(3)
    expected, _, _ = run(name).steps(jacobians, losses)
    directions, _, _ = run(name).steps(np.float32(factor) * jacobians, losses)
    assert_close(directions / factor**degree, expected, 1e-4)


def degenerate():
    """Returns name -> Jacobian `[TASKS, WIDTH]`."""
    (jacobian, *_), _ = data(4)
    a, b = jacobian[:2]
    return {
        'all zero': 0 * jacobian,
        'a zero row': np.stack([a, 0 * a, b, jacobian[3]]),
        'only one that is not zero': np.stack([0 * a, a, 0 * a, 0 * a]),
        'all equal': np.stack([a] * TASKS),
        'two equal': np.stack([a, a, b, jacobian[3]]),
        'opposite': np.stack([a, -a, b, -b]),
        'all but one opposite': np.stack([a, -a, -a, -a]),
        'one direction': np.stack([a, 2 * a, 0.1 * a, 30 * a]),
        'rank two': np.stack([a, b, a + b, a - 3 * b]),
        'almost equal': np.stack([a, a + 1e-6 * b, a - 1e-6 * b, a]),
        'disparity': np.float32([[1e-3], [1.0], [1e3], [30.0]]) * jacobian,
        'disparity of opposite': np.stack([1e-3 * a, -1e3 * a, b, -b]),
        'tiny': np.float32(1e-12) * jacobian,
        'huge': np.float32(1e12) * jacobian,
    }


@each
@pytest.mark.parametrize('case', degenerate())
def test_finite_whatever_finite_jacobian_comes(name, case):
    jacobian = degenerate()[case].astype(np.float32)
    _, losses = data(4)
    directions, weights, state = run(name).steps([jacobian] * STEPS, losses)
    assert all_finite((directions, weights, state))


@each
@pytest.mark.parametrize('losses', [[0, 0, 0, 0], [1, 0, 2, 0], [1e-3, 1e3, 1, 1], [1e-10, 1, 1e10, 1]], ids=str)
def test_finite_whatever_losses_come(name, losses):
    jacobians, _ = data(5)
    assert all_finite(run(name).steps(jacobians, np.float32([losses] * STEPS)))


@each
def test_a_task_that_is_alone_gets_its_gradient(name):
    (jacobian, *_), (losses, *_) = data(6)
    jacobian[1:], losses[1:] = np.nan, np.nan
    direction, _, _ = run(name)(jacobian, losses)
    gradient = jacobian[0].astype(np.float64)
    if run(name).splits > 1:
        return
    factor = ALONE.get(name, 1.0)
    if factor is None:
        factor = np.dot(direction, gradient) / np.dot(gradient, gradient)
        assert factor > 0
    assert_close(direction, factor * gradient, 1e-5)


@pytest.mark.parametrize('name', sorted(NON_CONFLICTING))
@pytest.mark.parametrize('case', [*range(4), 'rank two', 'opposite', 'disparity', 'one direction'], ids=str)
def test_the_direction_is_against_no_task(name, case):
    jacobian = data(7)[0][case] if isinstance(case, int) else degenerate()[case].astype(np.float32)
    direction, _, _ = run(name)(jacobian, data(7)[1][0])
    products = jacobian.astype(np.float64) @ np.asarray(direction, np.float64)
    # The rounding of float32, relative to the two vectors.
    assert np.all(products >= -1e-5 * np.linalg.norm(jacobian, axis=1) * np.linalg.norm(jacobian))


@pytest.mark.parametrize('name', sorted(STATIONARY))
def test_nothing_to_do_where_the_gradients_cancel(name):
    (jacobian, *_), (losses, *_) = data(8)
    jacobian[3] = -(jacobian[0] + 2 * jacobian[1] + 0.5 * jacobian[2])
    direction, _, _ = run(name)(jacobian, losses)
    assert np.linalg.norm(direction) < 1e-5 * np.linalg.norm(jacobian)


@pytest.mark.parametrize(
    'name', [name for name in FAMILY if any(isinstance(value, list) for value in ARGUMENTS[name].values())]
)
def test_wrong_number_of_tasks(name):
    with pytest.raises(ValueError, match=f'one entry per task: got {TASKS} for 2 tasks'):
        run(name).balancer.init(2)
