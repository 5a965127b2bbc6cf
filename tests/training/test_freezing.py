"""What is frozen does not move by one bit, costs no gradient and holds no state; all else trains as it would alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, encoders, sharing
from mmtl_jax.balancing.base import initial_state
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.training.freezing import join, trained_part
from mmtl_jax.training.gradient import Jacobian, make_gradient, make_measure
from mmtl_jax.training.objective import shared_parameters
from mmtl_jax.training.optimizer import make_optimizer
from tests.training.tiny import TASKS, make_batch, make_model, make_state, make_step

FREEZE = ('encoders/table', 'heads/size')
# What a sum with 0 would change: 0 of the other sign, and a number so small that a CPU takes it for 0.
FRAGILE = np.array([-0.0, 1e-40], np.float32)


def optimizer_of(freeze=FREEZE, **options):
    return make_optimizer('adamw', optax.constant_schedule(1e-2), weight_decay=0.1, freeze=freeze, **options)


def bits(tree):
    return {path: np.asarray(leaf).view(np.int32) for path, leaf in flatten_with_paths(tree).items()}


def with_fragile(state, *path):
    """Returns the state with two fragile numbers in a parameter."""
    params = jax.tree.map(lambda leaf: leaf, state.params)
    place = params
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = jnp.asarray(np.concatenate([FRAGILE, np.asarray(place[path[-1]])[2:]]))
    return state.replace(params=params)


def is_frozen(path):
    return path.startswith(FREEZE)


def moved_paths(before, after):
    after = bits(after)
    return {path for path, value in bits(before).items() if not np.array_equal(value, after[path])}


@functools.cache
def first_state(freeze=FREEZE):
    return make_state(make_model(), optimizer_of(freeze), balancing.equal(), average=True)


@pytest.mark.parametrize(
    ('method', 'level'),
    [
        ('equal', 'parameters'),
        ('mgda', 'features'),
        *(pytest.param(name, 'parameters', marks=pytest.mark.slow) for name in ('mgda', 'moco', 'modo', 'ema', 'famo')),
    ],
)
def test_what_is_frozen_stays_to_the_bit_under_any_balancer(method, level):
    arguments = {'balancer': 'mgda'} if method == 'ema' else {}
    balancer, first = getattr(balancing, method)(**arguments), first_state()
    first = first.replace(balancer=initial_state(balancer, len(TASKS), shared_parameters(first.trained)))
    state = first = with_fragile(first, 'encoders', 'table', 'Dense_0', 'bias')
    step = make_step(TASKS, balancer, optimizer_of(), Jacobian(level=level), average_decay=0.5)
    for i in range(3):
        state, measures = step(state, make_batch(i, rows=9))
        assert not measures['bad'].any()
    for after in (state.params, state.inference['params']):
        moved = moved_paths(first.params, after)
        assert not any(is_frozen(path) for path in moved)
        assert {'encoders', 'fusion', 'heads'} == {path.split('/')[0] for path in moved}


def test_what_is_frozen_has_no_state():
    state = jax.eval_shape(lambda: make_state(make_model(), optimizer_of(), balancing.moco(), average=True))
    paths = [path for part in (state.optimizer, state.balancer, state.average) for path in flatten_with_paths(part)]
    assert any('encoders/text' in path for path in paths)
    assert not any(frozen in path for path in paths for frozen in FREEZE)


def test_the_gradients_are_those_of_what_is_trained():
    model, batch = make_model(), make_batch(3)
    state = first_state()

    def losses(trained):
        predictions = model.apply({'params': join(trained, state.params)}, batch, train=False)
        return jnp.stack([task.loss(predictions[task.name], batch.targets[task.name]).mean() for task in TASKS])

    rows = jax.jit(jax.jacrev(losses))(state.trained)
    gradients, outcome = jax.jit(make_gradient(model, TASKS, balancing.mgda()))(state, batch)
    assert jax.tree.structure(gradients) == jax.tree.structure(state.trained)
    flat = np.concatenate(
        [np.asarray(leaf).reshape(2, -1) for leaf in jax.tree.leaves(shared_parameters(rows))], axis=1
    )
    np.testing.assert_allclose(outcome.gramian, flat @ flat.T, rtol=1e-4)
    for path, gradient in flatten_with_paths(shared_parameters(gradients)).items():
        expected = jnp.tensordot(outcome.weights, flatten_with_paths(rows)[path], axes=1)
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max() + 1e-12)
    assert jax.tree.leaves(gradients['heads']['size']) == []


@pytest.mark.parametrize('method', ['equal', 'mgda'])
def test_the_way_back_ends_where_all_below_is_frozen(method):
    model = make_model()
    deep = encoders.TabularMLP(width=64, depth=6)
    model = model.clone(encoders={'table': deep, 'text': model.encoders['text']})
    batch, balancer = make_batch(0), getattr(balancing, method)()

    def operations(function, *arguments):
        return jax.jit(function).lower(*arguments).cost_analysis()['flops']

    def of_gradient(freeze):
        state = jax.eval_shape(lambda: make_state(model, optimizer_of(freeze), balancer))
        return operations(make_gradient(model, TASKS, balancer), state, batch)

    state = jax.eval_shape(lambda: make_state(model, optimizer_of(()), balancer))
    forward = operations(lambda params: model.apply({'params': params}, batch, train=True), state.params)
    # A backward pass through the encoder costs at least as much as the pass forward.
    assert of_gradient(()) > 2.5 * forward
    assert of_gradient(('encoders/table',)) < 1.5 * forward


def test_heads_may_train_alone():
    freeze = ('encoders', 'fusion', 'sharing')
    model = make_model().clone(sharing=sharing.Hard(tasks=('kind', 'size'), width=8, depth=1))
    state = make_state(model, optimizer_of(freeze), balancing.equal())
    measured = jax.jit(make_measure(model, TASKS, Jacobian()))(state, make_batch(0))
    assert measured['active'].all()
    assert not measured['gramian'].any()
    gradients, outcome = jax.jit(make_gradient(model, TASKS, balancing.equal()))(state, make_batch(0))
    assert set(flatten_with_paths(gradients)) == {path for path in flatten_with_paths(state.params) if 'heads' in path}
    assert not outcome.bad.any()
    with pytest.raises(ValueError, match='leaves no shared parameter to train, so that there are no gradients'):
        jax.eval_shape(lambda: make_state(model, optimizer_of(freeze), balancing.mgda()))


def test_a_head_that_sits_out_rests_with_its_state():
    balancer, optimizer = balancing.equal(), optimizer_of(('encoders/table',))
    step = make_step(TASKS, balancer, optimizer)
    state, _ = step(first_state(('encoders/table',)).replace(average=None), make_batch(0))
    after, _ = step(state, make_batch(1, labelled={'size': False}))
    before, after = (bits((part.params, part.optimizer)) for part in (state, after))
    of_head = [path for path in before if 'heads/size' in path]
    # The parameters and both of Adam's moments.
    assert len(of_head) == 3 * 2
    assert all(np.array_equal(before[path], after[path]) for path in of_head)


def test_until_its_step_a_parameter_rests_to_the_bit_and_its_average_too():
    balancer = balancing.equal()
    optimizer = optimizer_of((), unfreeze={'encoders/text/embedding': 0, 'encoders': 2})
    step = make_step(TASKS, balancer, optimizer, average_decay=0.9)
    state = make_state(make_model(), optimizer, balancer, average=True)
    state = with_fragile(state, 'encoders', 'table', 'missing')
    state = state.replace(average=jax.tree.map(jnp.copy, state.params))
    moved = []
    for i in range(3):
        before = state
        state, _ = step(state, make_batch(i))
        changed = moved_paths(before.params, state.params)
        assert moved_paths(before.average, state.average) == changed
        moved.append({'/'.join(path.split('/')[:3]) for path in changed if path.startswith('encoders')})
    assert moved[:2] == [{'encoders/text/embedding'}] * 2
    assert len(moved[2]) > 4


def test_gradients_of_everything_may_be_given_too():
    params = first_state().params
    optimizer, ones = optimizer_of(), jax.tree.map(jnp.ones_like, params)
    updates, state = optimizer.update(ones, optimizer.init(params), params)
    trained = trained_part(ones, FREEZE)
    alone, other = optimizer.update(trained, optimizer.init(trained_part(params, FREEZE)), trained_part(params, FREEZE))
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for path, update in flatten_with_paths(updates).items():
        np.testing.assert_array_equal(update, 0.0 if is_frozen(path) else flatten_with_paths(alone)[path])


@pytest.mark.parametrize(
    ('freeze', 'message'),
    [
        (('encoders/speech',), r"freeze 'encoders/speech' matches no parameter; there are \['encoders/table', "),
        (('heads/(kind',), r"freeze 'heads/\(kind' is no regular expression: missing \)"),
        (('encoders', 'fusion', 'heads'), r"freeze \['encoders', 'fusion', 'heads'\] leaves nothing to train"),
        ('encoders/table', "freeze is a sequence of expressions, got the text 'encoders/table'; put it in brackets"),
    ],
)
def test_bad_input_is_named(freeze, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: make_state(make_model(), optimizer_of(freeze), balancing.equal()))
