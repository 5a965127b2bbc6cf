"""Schemes that must be the same as others, with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import sharing
from mmtl_jax.heads import Classification
from tests import quick
from tests.sharing.test_common import TASKS, WIDTH, fused

LABELS = {'colour': np.array([0, 2, 1]), 'count': np.array([1, 1, 0])}


def apply(scheme, parameters) -> dict:
    """Returns each task's features."""
    return quick.jit(lambda: scheme.apply({'params': parameters}, fused(), train=False))()


def parameters_of(scheme) -> dict:
    variables = quick.parameters(scheme, fused(), train=False).get('params', {})
    # Biases away from 0, so that one in a wrong place shows.
    noise = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: leaf + noise.normal(scale=0.1, size=leaf.shape).astype(leaf.dtype), variables)


def assert_close(a, b):
    # Another program may sum in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), a, b)


def test_hard_sharing_hands_on_what_has_the_width_already():
    features = fused(width=WIDTH)
    outputs, variables = sharing.Hard(TASKS, WIDTH).init_with_output(jax.random.key(0), features, train=False)
    assert not variables
    np.testing.assert_array_equal(outputs['count'].tokens, features.tokens)
    assert outputs['count'].maps is features.maps


def test_a_task_of_split_gives_the_same_whoever_else_is_there():
    parameters = parameters_of(sharing.Split(TASKS, WIDTH))
    alone = apply(sharing.Split(('count',), WIDTH), parameters)
    assert_close(alone['count'], apply(sharing.Split(TASKS, WIDTH), parameters)['count'])


def test_split_takes_any_names_of_tasks():
    names = ('depth', 'depth_norm', 'width')
    variables = quick.parameters(sharing.Split(tasks=names, width=WIDTH), fused(), train=False)
    assert set(variables['params']) == set(names)


def train(tasks: tuple[str, ...], start: dict) -> dict:
    """Returns the parameters of `Split` and of a head for each task after five steps of Adam on the summed losses."""
    scheme, head, optimizer = sharing.Split(tasks, WIDTH), Classification(3), optax.adam(0.05)

    def loss(parameters):
        shared = scheme.apply({'params': parameters['sharing']}, fused(), train=False)
        logits = {task: head.apply({'params': parameters['heads'][task]}, shared[task], train=False) for task in tasks}
        return sum(
            jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits[task], LABELS[task])) for task in tasks
        )

    @quick.jit
    def step(parameters, state):
        updates, state = optimizer.update(jax.grad(loss)(parameters), state)
        return optax.apply_updates(parameters, updates), state

    parameters = jax.tree.map(jnp.asarray, {part: {task: of[task] for task in tasks} for part, of in start.items()})
    state = optimizer.init(parameters)
    for _ in range(5):
        parameters, state = step(parameters, state)
    return parameters


def test_split_equals_networks_that_were_trained_separately():
    head = quick.parameters(Classification(3), fused(width=WIDTH), train=False)['params']
    start = {'sharing': parameters_of(sharing.Split(TASKS, WIDTH)), 'heads': dict.fromkeys(TASKS, head)}
    together = train(TASKS, start)
    for task in TASKS:
        alone = train((task,), start)
        # Adam divides gradients by their size, so that the last digits of small ones are seen; steps are of size 0.05.
        for part in alone:
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, atol=1e-3), alone[part][task], together[part][task]
            )
        assert (
            np.abs(
                alone['heads'][task]['Readout_0']['Dense_0']['kernel'] - head['Readout_0']['Dense_0']['kernel']
            ).max()
            > 0.1
        )


def test_mmoe_with_one_expert_is_hard_sharing():
    scheme = sharing.MMoE(TASKS, WIDTH, num_experts=1, depth=2)
    parameters = parameters_of(scheme)
    assert set(parameters) == {'expert_0'}
    assert_close(
        apply(scheme, parameters), apply(sharing.Hard(TASKS, WIDTH, depth=2), {'trunk': parameters['expert_0']})
    )


def test_cgc_without_shared_experts_and_one_of_its_own_is_split():
    scheme = sharing.CGC(TASKS, WIDTH, num_shared=0)
    parameters = parameters_of(scheme)
    own = {task: parameters[f'level_0_expert_{task}_0'] for task in TASKS}
    assert len(parameters) == len(own)
    assert_close(apply(scheme, parameters), apply(sharing.Split(TASKS, WIDTH), own))


def test_cgc_without_experts_of_its_own_is_mmoe():
    scheme = sharing.CGC(TASKS, WIDTH, num_shared=2, num_own=0)
    parameters = parameters_of(scheme)
    experts = {f'expert_{index}': parameters[f'level_0_expert_shared_{index}'] for index in range(2)}
    gates = {f'gate_{task}': parameters[f'level_0_gate_{task}'] for task in TASKS}
    assert_close(apply(scheme, parameters), apply(sharing.MMoE(TASKS, WIDTH, num_experts=2), experts | gates))


def test_ple_of_one_level_is_cgc():
    parameters = parameters_of(sharing.CGC(TASKS, WIDTH))
    assert_close(
        apply(sharing.CGC(TASKS, WIDTH), parameters), apply(sharing.PLE(TASKS, WIDTH, num_levels=1), parameters)
    )


@pytest.mark.parametrize('depth', [1, 2])
def test_cross_stitch_with_identities_is_one_network_per_task(depth):
    scheme = sharing.CrossStitch(TASKS, WIDTH, depth=depth)
    parameters = parameters_of(scheme)
    for name in parameters:
        if name.startswith('stitch'):
            parameters[name] = np.broadcast_to(np.eye(len(TASKS), dtype=np.float32)[..., None], parameters[name].shape)
    stitched = apply(scheme, parameters)
    if depth == 1:
        expected = apply(sharing.Split(TASKS, WIDTH), {task: parameters[f'{task}_0'] for task in TASKS})
    else:
        split = sharing.Split(('only',), WIDTH)

        def alone(task):
            features = fused()
            for layer in range(depth):
                variables = {'params': {'only': parameters[f'{task}_{layer}']}}
                features = split.apply(variables, features, train=False)['only']
            return features

        expected = quick.jit(lambda: {task: alone(task) for task in TASKS})()
    assert_close(stitched, expected)


@pytest.mark.parametrize('kind', ['low_rank', 'film'])
def test_adapters_start_as_hard_sharing(kind):
    scheme = sharing.Adapters(TASKS, WIDTH, kind=kind, depth=1)
    parameters = quick.jit(lambda: scheme.init(jax.random.key(0), fused(), train=False))()['params']
    expected = apply(sharing.Hard(TASKS, WIDTH, depth=1), {'trunk': parameters['trunk_0']})
    assert_close(apply(scheme, parameters), expected)


def test_learning_to_branch_of_one_layer_is_split():
    scheme = sharing.LearningToBranch(TASKS, WIDTH, depth=1)
    parameters = parameters_of(scheme)
    outputs = quick.jit(
        lambda: scheme.apply({'params': parameters, 'annealing': {'passes': 0}}, fused(), train=False)
    )()
    assert_close(outputs, apply(sharing.Split(TASKS, WIDTH), {task: parameters[f'{task}_0'] for task in TASKS}))
