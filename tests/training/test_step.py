"""The step: equal to plain training where there is one task, and safe where a task has nothing or NaN to say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from mmtl_jax import balancing
from mmtl_jax.training.mesh import make_mesh, replicated, split
from tests.training.tiny import TASKS, make_all, make_batch, make_model


@pytest.fixture(scope='module')
def both():
    return make_all()


def distance(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_one_task_equals_a_plain_flax_loop():
    task = TASKS[:1]
    step, state = make_all(task, optimizer=optax.adam(1e-2))
    model, optimizer = make_model(task), optax.adam(1e-2)
    params, moments = state.params, optimizer.init(state.params)

    @jax.jit
    def plain(params, moments, batch):
        def loss(params):
            predictions = model.apply({'params': params}, batch, train=False)['kind']
            return optax.softmax_cross_entropy_with_integer_labels(predictions, batch.targets['kind']).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, value

    for i in range(5):
        state, measures = step(state, make_batch(i))
        params, moments, loss = plain(params, moments, make_batch(i))
        # Two programs may order a float32 sum differently; Adam amplifies what remains of it a little.
        np.testing.assert_allclose(measures['losses'][0], loss, rtol=1e-5)
    assert distance(state.params, params) < 1e-5


def test_equal_weights_are_the_sum_of_the_losses(both):
    step, state = both
    model, batch = make_model(), make_batch(1)

    def total(params):
        predictions = model.apply({'params': params}, batch, train=False)
        return sum(task.loss(predictions[task.name], batch.targets[task.name]).mean() for task in TASKS)

    _, measures = step(state, batch)
    gradient = jax.jit(jax.grad(total))(state.params)
    np.testing.assert_allclose(measures['grad_norm'], optax.tree.norm(gradient), rtol=1e-5)


def trained(both, batches):
    step, state = both
    for batch in batches:
        state, measures = step(state, batch)
    return state, measures


def test_a_task_without_labels_leaves_its_head_unchanged_to_the_bit(both):
    before, _ = trained(both, [make_batch(i) for i in range(3)])
    after, measures = trained((both[0], before), [make_batch(3, labelled={'size': False})])
    assert distance(before.params['heads']['size'], after.params['heads']['size']) == 0.0
    assert distance(before.params['heads']['kind'], after.params['heads']['kind']) > 0.0
    assert measures['weights'].tolist() == [1.0, 0.0]
    # Its momentum rests too, so that it does not move by itself when labels come back.
    moments = [jax.tree_util.tree_leaves_with_path(state.optimizer) for state in (before, after)]
    for (path, old), (_, new) in zip(*moments, strict=True):
        if 'size' in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(old, new)


def test_no_labels_at_all_change_nothing_but_what_momentum_does(both):
    state, measures = trained(both, [make_batch(0, labelled={'size': False, 'kind': False})])
    assert measures['losses'].tolist() == [0.0, 0.0]
    assert bool(jnp.isfinite(measures['grad_norm']))
    assert int(state.step) == 1


def test_a_task_with_a_non_finite_loss_sits_out_and_is_counted(both):
    step, state = both
    batch = make_batch(4)
    spoilt = batch.replace(targets={**batch.targets, 'size': batch.targets['size'].at[2].set(jnp.nan)})
    silent = batch.replace(labelled={**batch.labelled, 'size': jnp.zeros(8, bool)})
    after, measures = step(state, spoilt)
    expected, _ = step(state, silent)
    assert measures['bad'].tolist() == [False, True, False]
    assert after.bad_run.tolist() == [0, 1, 0]
    assert distance(after.params, expected.params) == 0.0


def test_a_task_with_a_finite_loss_and_a_non_finite_gradient_sits_out():
    # The square root of a zero error is finite; its gradient is not.
    def spiky(predictions, targets):
        error = jnp.abs(predictions - jax.lax.stop_gradient(predictions)).sum(-1) + 0.0 * targets.sum(-1)
        return jnp.sqrt(error)

    tasks = (TASKS[0], dataclasses.replace(TASKS[1], loss=spiky))
    step, state = make_all(tasks, balancer=balancing.equal())
    after, measures = step(state, make_batch(1))
    assert measures['bad'].tolist() == [False, True, False]
    assert distance(after.params['heads']['size'], state.params['heads']['size']) == 0.0
    assert distance(after.params['encoders'], state.params['encoders']) > 0.0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after.params))


def test_a_step_whose_shared_part_is_not_finite_sits_out_whole(both):
    step, state = both
    batch = make_batch(1)
    broken = batch.replace(inputs={**batch.inputs, 'table': batch.inputs['table'].at[0, 0].set(jnp.inf)})
    after, measures = step(state, broken)
    assert measures['bad'][0]
    assert distance(after.params, state.params) == 0.0 or bool(jnp.isfinite(measures['grad_norm']))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after.params))
    assert int(after.step) == 1


def test_a_run_of_bad_steps_stays_on_record_until_it_is_seen():
    step, state = make_all(max_bad_steps=2)
    batch = make_batch(4)
    spoilt = batch.replace(targets={**batch.targets, 'size': batch.targets['size'] * jnp.nan})
    for bad in (spoilt, spoilt, batch):
        state, _ = step(state, bad)
    assert state.bad_run.tolist() == [0, 2, 0]


def test_padded_rows_count_for_nothing(both):
    step, state = both
    batch = make_batch(2)
    padded = batch.replace(real=jnp.arange(8) < 6)
    other = padded.replace(targets={**batch.targets, 'size': batch.targets['size'].at[6:].set(jnp.nan)})
    one, measures = step(state, padded)
    two, _ = step(state, other)
    assert measures['counts'].tolist() == [6.0, 6.0]
    assert distance(one.params, two.params) == 0.0


def test_the_average_follows_the_parameters():
    step, state = make_all(average_decay=0.5)
    for i in range(3):
        state, _ = step(state, make_batch(i))
    assert 0.0 < distance(state.average, state.params) < 0.1
    assert distance(state.inference['params'], state.average) == 0.0


@pytest.mark.parametrize(('method', 'average_decay'), [('equal', None), ('mgda', 0.9)])
def test_one_device_equals_eight_over_twenty_steps(method, average_decay):
    step, state = make_all(balancer=getattr(balancing, method)(), average_decay=average_decay)
    results = []
    for count in (1, 8):
        mesh = make_mesh(count, batch_size=8)
        assert mesh.axis_types == (AxisType.Auto,)
        current = jax.device_put(state, replicated(mesh))
        jitted = jax.jit(step, out_shardings=replicated(mesh))
        for i in range(20):
            current, _ = jitted(current, jax.device_put(make_batch(i), split(mesh)))
        results.append(jax.device_get(current.params))
    # A sum over eight devices is a sum in another order: float32 rounding over 20 Adam steps.
    assert distance(*results) < 1e-5


def test_a_mesh_needs_a_batch_that_divides():
    with pytest.raises(ValueError, match='batch_size 6 does not divide by 4 devices; choose a multiple of 4'):
        make_mesh(4, batch_size=6)
    with pytest.raises(ValueError, match='num_devices is 99'):
        make_mesh(99, batch_size=99)
