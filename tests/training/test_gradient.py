"""The gradient of a batch: every balancer trains, at either level, and gets what it would get from a Jacobian."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, sharing
from mmtl_jax.balancing import aggregate
from mmtl_jax.balancing.base import initial_state
from mmtl_jax.core.tree import all_finite
from mmtl_jax.training.gradient import Jacobian, make_gradient, make_measure
from mmtl_jax.training.objective import shared_parameters
from tests.balancing.test_common import ARGUMENTS, FAMILY
from tests.training.tiny import TASKS, make_batch, make_model, make_state, make_step

KINDS = {'kind': True, 'size': False}, {'kind': False, 'size': True}, {'kind': True, 'size': True}


def distance(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(got, expected, rtol=1e-4):
    """Compares trees of gradients in float32, each array relative to its size."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max()) + 1e-12)


def build(name, num_tasks=2):
    given = {key: value[:num_tasks] if isinstance(value, list) else value for key, value in ARGUMENTS[name].items()}
    return getattr(balancing, name)(**given)


@functools.cache
def first_state(tasks=TASKS):
    """Returns the state that all tests start from, but for the balancer's part."""
    return make_state(make_model(tasks), optax.sgd(1e-2), balancing.equal(), tasks)


def with_balancer(balancer, tasks=TASKS):
    state = first_state(tasks)
    return state.replace(balancer=initial_state(balancer, len(tasks), shared_parameters(state.params)))


def three_labelled(seed, rows, labelled):
    """Returns a batch with the labels of three tasks: the third has those of the second."""
    batch = make_batch(seed, rows=rows, labelled=labelled)
    targets = {**batch.targets, 'again': batch.targets['size']}
    return batch.replace(targets=targets, labelled={**batch.labelled, 'again': batch.labelled['size']})


THREE = (*TASKS, dataclasses.replace(TASKS[1], name='again'))
# One of each way in which the trainer treats balancers; the others differ in what they do with the same signals.
WAYS = {'dwa', 'famo', 'mgda', 'excess_mtl', 'graddrop', 'modo', 'every'}


@pytest.mark.parametrize(
    'name', [name if name in WAYS else pytest.param(name, marks=pytest.mark.slow) for name in FAMILY]
)
def test_every_method_trains_where_batches_have_labels_of_some_tasks_only(name):
    balancer = build(name, 3)
    step, state = make_step(THREE, balancer, optax.sgd(1e-2)), with_balancer(balancer, THREE)
    batches = [three_labelled(i, 9, KINDS[i % 3]) for i in range(6)]
    for i, batch in enumerate(batches):
        before = state
        state, measures = step(state, batch)
        assert all_finite((state.params, state.balancer, measures['losses']))
        assert not measures['bad'].any()
        for task, labelled in KINDS[i % 3].items():
            moved = distance(before.params['heads'][task], state.params['heads'][task])
            assert labelled or moved == 0.0
    assert distance(before.params['encoders'], state.params['encoders']) > 0.0
    assert measures['active'].all()


def losses_of(model):
    """Returns (params, batch) -> losses `[T]` of a batch in which every row has every label."""

    def losses(params, batch):
        predictions = model.apply({'params': params}, batch, train=False)
        return jnp.stack([task.loss(predictions[task.name], batch.targets[task.name]).mean() for task in TASKS])

    return losses


@pytest.fixture(scope='module')
def plain():
    """A model, its parameters, and JAX's own (losses, Jacobian of the shared parameters, of the heads)."""
    model, state = make_model(), first_state()

    @jax.jit
    def jacobian(params, batch):
        rows = jax.jacrev(losses_of(model))(params, batch)
        heads = rows.pop('heads')
        return losses_of(model)(params, batch), rows, heads

    return model, state, jacobian


@pytest.mark.parametrize('name', ['mgda', 'moco', 'excess_mtl', 'per_group', 'clip_norm'])
def test_the_shared_parameters_get_what_aggregate_gives(plain, name):
    model, _, jacobian = plain
    balancer, batch = build(name), make_batch(3)
    state = with_balancer(balancer)
    losses, rows, heads = jacobian(state.params, batch)
    direction, weights, _ = aggregate(balancer, rows, losses, state.balancer)
    gradients, outcome = jax.jit(make_gradient(model, TASKS, balancer))(state, batch)
    own = gradients.pop('heads')
    close(gradients, direction)
    factors = (1.0, 1.0) if balancer.heads == 'own' else weights
    for task, (name, factor) in enumerate(zip(('kind', 'size'), factors, strict=True)):
        close(own[name], jax.tree.map(lambda leaf, t=task, f=factor: f * leaf[t], heads[name]))
    flat = np.concatenate([np.asarray(leaf).reshape(2, -1) for leaf in jax.tree.leaves(rows)], axis=1)
    np.testing.assert_allclose(outcome.gramian, flat @ flat.T, rtol=1e-4)


def test_parts_of_the_batch_are_every_third_row(plain):
    model, _, jacobian = plain
    balancer, batch = balancing.modo(), make_batch(3, rows=9)
    state = with_balancer(balancer)
    parts = [jacobian(state.params, jax.tree.map(lambda leaf, s=s: leaf[s::3], batch)) for s in range(3)]
    losses, rows, heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    direction, _, _ = aggregate(balancer, rows, losses, state.balancer)
    gradients, outcome = jax.jit(make_gradient(model, TASKS, balancer))(state, batch)
    own = gradients.pop('heads')
    close(gradients, direction)
    close(own['size'], jax.tree.map(lambda leaf: leaf[:, 1].mean(0), heads['size']))
    assert outcome.counts.tolist() == [9.0, 9.0]
    np.testing.assert_allclose(outcome.losses, losses.mean(0), rtol=1e-5)


@pytest.mark.parametrize('scheme', ['Hard', 'Split'])
def test_at_the_features_the_weights_are_those_of_their_gradients(scheme):
    model = make_model().clone(sharing=getattr(sharing, scheme)(tasks=('kind', 'size'), width=8))
    balancer, batch = balancing.mgda(), make_batch(3)
    state = make_state(model, optax.sgd(1.0), balancer, level='features')

    @jax.jit
    def by_hand(params, batch):
        z = model.apply({'params': params}, batch, train=False, method='features')['fused']

        def losses(tokens):
            predictions = model.apply(
                {'params': params}, {'fused': z.replace(tokens=tokens)}, train=False, method='predict'
            )
            return jnp.stack([task.loss(predictions[task.name], batch.targets[task.name]).mean() for task in TASKS])

        return losses(z.tokens), jax.jacrev(losses)(z.tokens)

    losses, rows = by_hand(state.params, batch)
    _, weights, _ = aggregate(balancer, rows, losses, state.balancer)
    gradients, outcome = jax.jit(make_gradient(model, TASKS, balancer, Jacobian(level='features')))(state, batch)
    np.testing.assert_allclose(outcome.weights, weights, rtol=1e-4)
    # With the weights held, all that is shared, below z and above it, gets the gradient of the weighted sum.
    expected = jax.jit(jax.grad(lambda params: losses_of(model)(params, batch) @ weights))(state.params)
    gradients.pop('heads'), expected.pop('heads')
    close(gradients, expected)


def test_all_ways_to_take_the_jacobian_agree(plain):
    model, state, _ = plain
    results = [
        jax.jit(make_gradient(model, TASKS, balancing.cagrad(), Jacobian(jacobian=way)))(state, make_batch(1))[0]
        for way in ('auto', 'vmap', 'unrolled', 2)
    ]
    for result in results[1:]:
        close(result, results[0], rtol=1e-5)


def test_a_task_whose_gradient_is_not_finite_sits_out_of_the_jacobian():
    def spiky(predictions, targets):
        error = jnp.abs(predictions - jax.lax.stop_gradient(predictions)).sum(-1) + 0.0 * targets.sum(-1)
        return jnp.sqrt(error)

    tasks = (TASKS[0], dataclasses.replace(TASKS[1], loss=spiky))
    step, state = make_step(tasks, balancing.mgda(), optax.sgd(1e-2)), with_balancer(balancing.mgda(), tasks)
    after, measures = step(state, make_batch(1))
    assert measures['bad'].tolist() == [False, True, False]
    assert measures['weights'].tolist() == [1.0, 0.0]
    assert distance(after.params['heads']['size'], state.params['heads']['size']) == 0.0
    assert all_finite(after.params)


def test_what_is_measured_is_the_gramian_of_a_step(plain):
    model, state, _ = plain
    measured = jax.jit(make_measure(model, TASKS, Jacobian()))(state, make_batch(2, labelled={'size': False}))
    _, outcome = jax.jit(make_gradient(model, TASKS, balancing.mgda()))(state, make_batch(2))
    assert measured['active'].tolist() == [True, False]
    np.testing.assert_allclose(measured['gramian'][0, 0], outcome.gramian[0, 0], rtol=1e-5)
    assert float(jnp.abs(measured['gramian'][1]).max()) == 0.0


def test_famo_sees_the_losses_of_the_same_batch_after_the_step():
    balancer = balancing.famo(learning_rate=0.1)
    step, state = make_step(TASKS, balancer, optax.sgd(1e-2)), with_balancer(balancer)
    batch = make_batch(5)
    after, measures = step(state, batch)
    losses = jax.jit(losses_of(make_model()))(after.params, batch)
    _, between = balancer.update(balancing.Signals(losses=measures['losses'], active=jnp.ones(2, bool)), state.balancer)
    expected = balancer.after(losses, jnp.ones(2, bool), between)
    np.testing.assert_allclose(after.balancer.logits, expected.logits, rtol=1e-4)
    assert float(jnp.abs(after.balancer.logits).max()) > 0.0


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"no features in common; set balancing.level to 'parameters'"):
        make_gradient(make_model(), TASKS, balancing.modo(), Jacobian(level='features'))
    with pytest.raises(ValueError, match=r"belong to the examples of one batch; set balancing.level to 'parameters'"):
        make_state(make_model(), optax.sgd(0.1), balancing.moco(), level='features')
    with pytest.raises(ValueError, match=r"balancing.level is 'trunk'; it must be one of \('parameters', 'features'\)"):
        Jacobian(level='trunk')
    for wrong in (0, 'scan', True):
        with pytest.raises(ValueError, match=r'balancing.jacobian is'):
            Jacobian(jacobian=wrong)
    with pytest.raises(ValueError, match=r'balancing.record_every is 0'):
        Jacobian(record_every=0)
