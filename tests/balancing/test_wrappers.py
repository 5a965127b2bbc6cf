"""Balancers around balancers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Balancer, Rows, Signals, aggregate
from mmtl_jax.core.build import build
from tests.balancing.golden import SEQUENCE, goldens

ALL = jnp.ones(3, bool)
JACOBIAN = jax.random.normal(jax.random.key(0), (3, 8))


def replay(weights) -> Balancer:
    """Returns a balancer that gives the recorded weights one after the other."""
    return Balancer(init=lambda _: 0, update=lambda signals, step: (jnp.asarray(weights)[step], step + 1))


def signs() -> Balancer:
    """Returns a balancer that takes the sign of every entry."""

    def update(signals, state):
        return Rows.summed(jax.tree.map(jnp.sign, signals.jacobian), signals), state

    return Balancer(init=lambda num_tasks, gradient: (), update=update, needs='jacobian', heads='own')


def inverse_norms() -> Balancer:
    """Returns a balancer that normalises every gradient."""
    return balancing.from_weighting(
        lambda gramian, active: jax.lax.rsqrt(jnp.where(active, jnp.diagonal(gramian), 1.0)), heads='weighted'
    )


def follow(balancer, steps, active=None, losses=None):
    """Returns the weights of every step."""
    state, seen = balancer.init(3), []
    for step in range(steps):
        here = ALL if active is None else jnp.asarray(active[step])
        weights, state = balancer.update(Signals(jnp.ones(3) if losses is None else losses[step], here), state)
        seen.append(weights)
    return np.array(seen)


def test_ema_is_torchjds():
    """Their UPGrad weights (of the very code that LibMTL copied), averaged."""
    (inner,) = goldens('libmtl', 'UPGrad', 'defaults', 's3')
    (golden,) = goldens('torchjd17', 'CRMOGM', 'UPGrad,alpha=0.9', 's3')
    with jax.enable_x64(True):
        weights = follow(balancing.ema(replay(inner.arrays['weights_lstsq'])), 20)
    # Least squares recovers the inner weights to about 1e-14.
    np.testing.assert_allclose(weights, golden.arrays['weights'], rtol=1e-10)


def test_ema_of_a_task_stands_still_while_it_sits_out():
    active = [[True, False, True], [False, True, True], [True, True, False]]
    recorded = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    weights = follow(balancing.ema(replay(recorded), decay=0.75), 3, active)
    np.testing.assert_allclose(weights, [[1, 0, 3], [0, 5, 3.75], [2.5, 5.75, 0]], rtol=1e-6)


def test_every_keeps_its_weights_until_they_are_due():
    recorded = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    weights = follow(balancing.every(replay(recorded), steps=3), 7)
    np.testing.assert_array_equal(weights, recorded[[0, 0, 0, 1, 1, 1, 2]])


def test_every_computes_anew_for_a_task_that_comes_in_between():
    recorded = np.float32([[1, 0, 3], [4, 5, 6], [7, 8, 9]])
    active = [[True, False, True], [True, False, False], [True, True, True], [False, True, True], [True, True, True]]
    weights = follow(balancing.every(replay(recorded), steps=3), 5, active)
    np.testing.assert_array_equal(weights, [[1, 0, 3], [1, 0, 0], [4, 5, 6], [0, 5, 6], [4, 5, 6]])


@pytest.mark.parametrize('wrapper', ['ema', 'every', 'clip_norm'])
def test_wrappers_are_built_from_names_and_hand_on_what_follows_the_step(wrapper):
    extra = {'every': {'steps': 2}}.get(wrapper, {})
    spec = {'name': wrapper, 'balancer': {'name': 'famo', 'learning_rate': 0.1}, **extra}
    wrapped, bare = build(spec, balancing), balancing.famo(0.1)
    assert wrapped.heads == bare.heads
    losses, after = jnp.array([0.5, 2.0, 4.0]), jnp.array([0.4, 1.9, 2.0])
    states = []
    for balancer in (wrapped, bare):
        _, _, state = aggregate(balancer, JACOBIAN, losses)
        states.append(balancer.after(after, ALL, state))
    inner = getattr(states[0], 'inner', states[0])
    np.testing.assert_array_equal(inner.logits, states[1].logits)
    assert np.ptp(inner.logits) > 0


def test_clip_norm_around_famo():
    """What is recorded of the official code is the direction that it goes on to clip to norm 1."""
    (golden,) = goldens('famo', 'famo', 'gamma=1e-5,w_lr=0.025,max_norm=1 (class defaults)', 's3')
    with jax.enable_x64(True):
        balancer = balancing.clip_norm(balancing.famo(weight_decay=1e-5))
        assert balancer.needs == 'gramian'

        def step(state, batch):
            jacobian, losses, after = batch
            direction, _, state = aggregate(balancer, jacobian, losses, state)
            return balancer.after(after, ALL, state), direction

        batches = tuple(SEQUENCE[name] for name in ('J', 'losses', 'post'))
        _, directions = jax.jit(lambda: jax.lax.scan(step, balancer.init(3), batches))()
    norms = np.linalg.norm(golden.arrays['agg'], axis=1, keepdims=True)
    assert np.any(norms > 1.5)
    # FAMO's losses have 1e-8 added there.
    np.testing.assert_allclose(directions, golden.arrays['agg'] / np.maximum(norms, 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize('inner', [balancing.equal(), signs()], ids=['weights', 'rows'])
def test_clip_norm_bounds_only_what_is_too_long(inner):
    free, _, _ = aggregate(inner, JACOBIAN, jnp.ones(3))
    norm = float(np.linalg.norm(free))
    short, weights, _ = aggregate(balancing.clip_norm(inner, max_norm=norm / 2), JACOBIAN, jnp.ones(3))
    np.testing.assert_allclose(short, free / 2, rtol=1e-5)
    assert isinstance(weights, Rows) == (inner.needs == 'jacobian')
    same, _, _ = aggregate(balancing.clip_norm(inner, max_norm=2 * norm), JACOBIAN, jnp.ones(3))
    np.testing.assert_allclose(same, free, rtol=1e-6)
    nothing, _, _ = aggregate(balancing.clip_norm(inner), jnp.zeros((3, 8)), jnp.ones(3))
    np.testing.assert_array_equal(nothing, np.zeros(8))


def tree():
    a, b, c = jax.random.split(jax.random.key(1), 3)
    return {
        'encoder': {'kernel': jax.random.normal(a, (3, 4, 2)), 'bias': jax.random.normal(b, (3, 2))},
        'fusion': [10 * jax.random.normal(c, (3, 5))],
    }


def flat(part):
    """Returns `[..., d]` of a tree with one leading axis, or none."""
    return np.concatenate([np.asarray(leaf).reshape(3, -1) for leaf in jax.tree.leaves(part)], axis=1)


@pytest.mark.parametrize(
    ('depth', 'groups'),
    [
        (1, [[('encoder', 'kernel'), ('encoder', 'bias')], [('fusion', 0)]]),
        (None, [[('encoder', 'kernel')], [('encoder', 'bias')], [('fusion', 0)]]),
    ],
)
def test_per_group_normalises_each_group(depth, groups):
    jacobian = tree()
    balancer = balancing.per_group(inverse_norms(), depth=depth)
    assert balancer.heads == 'own'
    direction, rows, _ = jax.jit(lambda jacobian: aggregate(balancer, jacobian))(jacobian)
    assert isinstance(rows, Rows)
    for group in groups:
        given = [jacobian[top][below] for top, below in group]
        norms = np.linalg.norm(flat(given), axis=1)
        for (top, below), leaf in zip(group, given, strict=True):
            expected = np.einsum('t,t...->...', 1 / norms, leaf)
            np.testing.assert_allclose(direction[top][below], expected, rtol=1e-4, atol=1e-6)


def test_per_group_of_one_array_is_the_balancer_itself():
    direction, _, _ = aggregate(balancing.per_group(inverse_norms()), JACOBIAN)
    np.testing.assert_allclose(direction, aggregate(inverse_norms(), JACOBIAN)[0], rtol=1e-5, atol=1e-6)


def test_per_group_of_rows_and_of_states():
    direction, _, state = aggregate(balancing.per_group(signs()), tree())
    jax.tree.map(
        lambda got, leaf: np.testing.assert_array_equal(got, jnp.sum(jnp.sign(leaf), axis=0)), direction, tree()
    )
    assert state == [(), ()]
    averaged = balancing.per_group(balancing.ema(inverse_norms()))
    _, _, state = aggregate(averaged, tree())
    assert state.weights.shape == (2, 3)
    assert not np.any(state.weights[0] == state.weights[1])


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: balancing.ema('equal', decay=1.0), r'decay of ema must be in \[0, 1\), got 1'),
        (lambda: balancing.every('equal', steps=0), 'at least 1, got 0'),
        (lambda: balancing.clip_norm('equal', max_norm=0.0), 'max_norm of clip_norm must be positive, got 0'),
        (lambda: balancing.per_group('equal'), 'weighs by gradients alone; this one looks at losses'),
        (lambda: balancing.per_group(inverse_norms(), depth=0), 'at least 1, or None for every array, got 0'),
        (lambda: balancing.ema('eqal'), "did you mean 'equal'"),
        (lambda: aggregate(balancing.ema(signs()), JACOBIAN), 'ema needs a balancer that weights whole gradients'),
        (lambda: aggregate(balancing.every(signs(), steps=2), JACOBIAN), 'every needs a balancer that weights whole'),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
