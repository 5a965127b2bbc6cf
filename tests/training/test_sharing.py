"""Sharing schemes in the model and in the training step: what they learn by themselves, predict, draw and count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, encoders, fusion, heads, sharing, tasks
from mmtl_jax.core.types import Batch
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import Jacobian, make_gradient
from mmtl_jax.training.objective import make_objective
from mmtl_jax.training.state import init_state
from mmtl_jax.training.update import make_update
from tests import quick

ROWS, WIDTH = 8, 6
QUESTIONS = (tasks.classification('kind', num_classes=3), tasks.regression('size', num_outputs=2))
NAMES = tuple(task.name for task in QUESTIONS)
OPTIMIZER = optax.adam(0.02)


def make_batch() -> Batch:
    """Returns rows of a table, all labelled."""
    table = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    targets = {
        'kind': (table[:, 0] > 0).astype(np.int32) + (table[:, 1] > 0),
        'size': table[:, 1:],
        'entropy': np.zeros(ROWS, np.float32),
    }
    every = np.ones(ROWS, bool)
    return Batch({'table': table}, {'table': every}, targets, dict.fromkeys(targets, every), every)


def make_model(scheme, task_list=QUESTIONS, **members) -> MultiModalMultiTask:
    members = {
        'encoders': {'table': encoders.TabularMLP(width=WIDTH, depth=1)},
        'fusion': fusion.Sum(width=WIDTH),
        'heads': {task.name: task.head for task in task_list},
    } | members
    reads = {task.name: task.reads for task in task_list}
    return MultiModalMultiTask(sharing=scheme, reads=reads, **members)


def start(scheme, task_list=QUESTIONS, method: str = 'equal'):
    """Returns the model, its state, and its step."""
    model, balancer = make_model(scheme, task_list), getattr(balancing, method)()
    make = functools.partial(init_state, batch=make_batch(), num_tasks=len(task_list), seed=0, average=False)
    state = quick.jit(lambda: make(model, OPTIMIZER, balancer))()
    gradient, update = make_gradient(model, task_list, balancer, Jacobian()), make_update(task_list, OPTIMIZER)
    return model, state, quick.jit(lambda state: update(state, *gradient(state, make_batch())))


def trained_by(model, task_list, name: str) -> set[str]:
    """Returns the parts of the parameters that the loss of a task trains, and those of the sharing one by one."""
    objective, variables = make_objective(model, task_list), quick.parameters(model, make_batch(), train=False)
    rest = {collection: part for collection, part in variables.items() if collection != 'params'}

    def loss(params):
        z, after = objective.features(params, rest, make_batch(), jax.random.key(0))
        read, after = objective.share(params, after, z, jax.random.key(0))
        losses, _ = objective.losses(params, after, read, make_batch(), jax.random.key(0))
        return losses[[task.name for task in task_list].index(name)]

    found = quick.jit(jax.grad(loss))(variables['params'])
    parts = {name: part for name, part in found.items() if name != 'sharing'} | found['sharing']
    return {name for name, part in parts.items() if any(np.any(leaf) for leaf in jax.tree.leaves(part))}


def test_the_entropy_of_the_choices_is_a_task_that_trains_the_selectors():
    task_list = (*QUESTIONS, tasks.auxiliary('entropy'))
    model = make_model(sharing.DSelectK(NAMES, WIDTH, num_experts=3), task_list)
    assert trained_by(model, task_list, 'entropy') == {'encoders', 'fusion', 'selector_kind', 'selector_size'}


@pytest.mark.slow
def test_the_entropy_falls_beside_the_losses():
    _, state, step = start(sharing.DSelectK(NAMES, WIDTH, num_experts=3), (*QUESTIONS, tasks.auxiliary('entropy')))
    losses = []
    for _ in range(60):
        state, measures = step(state)
        losses.append(np.asarray(measures['losses']))
    # Two tasks that choose twice among three experts, of which one has two of the four codes.
    assert abs(losses[0][-1] - 4 * 1.5 * np.log(2)) < 0.1
    assert losses[-1][-1] < 0.5 * losses[0][-1]
    assert np.all(losses[-1][:2] < losses[0][:2])


def test_without_that_task_the_entropy_goes_no_further():
    model = make_model(sharing.DSelectK(NAMES, WIDTH, num_experts=3))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), make_batch(), train=False))
    assert set(shapes[0]) == set(NAMES)


def test_an_objective_that_neither_fusion_nor_sharing_have_is_named():
    task_list = (*QUESTIONS, tasks.auxiliary('sharpness'))
    model = make_model(sharing.DSelectK(NAMES, WIDTH), task_list)
    message = r"'sharpness' learns the objective 'sharpness', but the fusion has \[\] and the sharing \['entropy'\]"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


@pytest.mark.slow
@pytest.mark.parametrize('method', ['equal', 'cagrad'])
def test_branching_counts_a_pass_for_each_step(method):
    _, state, step = start(sharing.LearningToBranch(NAMES, WIDTH), method=method)
    for _ in range(3):
        state, _ = step(state)
    assert state.variables['annealing']['sharing']['passes'] == 3


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ({}, {'encoders', 'fusion', 'heads', 'kind', 'size', 'head_kind', 'embed_kind_size'}),
        ({'stop_gradient': True}, {'encoders', 'fusion', 'heads', 'size', 'embed_kind_size'}),
    ],
)
def test_a_task_reads_the_predictions_of_its_base_task(arguments, expected):
    scheme = sharing.Hierarchical(NAMES, WIDTH, predictions=True, **arguments)
    model = make_model(scheme)
    assert set(quick.parameters(model, make_batch(), train=False)['params']['heads']) == {'size'}
    assert trained_by(model, QUESTIONS, 'size') == expected


@pytest.mark.slow
def test_a_head_that_others_read_learns_with_the_shared_parameters():
    _, state, step = start(sharing.Hierarchical(NAMES, WIDTH, predictions=True))
    first, (_, before) = state.params['sharing']['head_kind'], step(state)
    for _ in range(30):
        state, after = step(state)
    assert np.all(after['losses'] < before['losses'])
    moved = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), first, state.params['sharing']['head_kind'])
    assert all(distance > 0.05 for distance in jax.tree.leaves(moved))


def test_what_is_read_are_the_probabilities_of_the_head():
    scheme = sharing.Hierarchical(NAMES, WIDTH, predictions='kind')
    model = make_model(scheme)
    variables = quick.parameters(model, make_batch(), train=False)

    @quick.jit
    def run(shift):
        """Adds `shift` to the logits of the base task, and returns all predictions."""
        shared = {**variables['params']['sharing']}
        dense = shared['head_kind']['Readout_0']['Dense_0']
        shared['head_kind'] = {'Readout_0': {'Dense_0': {**dense, 'bias': dense['bias'] + shift}}}
        params = {**variables['params'], 'sharing': shared}
        return model.apply({'params': params}, make_batch(), train=False)

    plain, shifted, raised = run(jnp.zeros(3)), run(jnp.full(3, 5.0)), run(jnp.array([5.0, 0, 0]))
    # A softmax does not see what is added to all; the sums differ in their last digits.
    np.testing.assert_allclose(shifted['kind'], plain['kind'] + 5, atol=1e-4)
    np.testing.assert_allclose(shifted['size'], plain['size'], atol=1e-4)
    assert np.max(np.abs(raised['size'] - plain['size'])) > 1e-2


def test_predictions_that_cannot_be_read_are_told_in_one_sentence():
    task_list = (dataclasses.replace(QUESTIONS[0], head=heads.CTC(3)), QUESTIONS[1])
    scheme = sharing.Hierarchical(NAMES, WIDTH, predictions=True)
    with pytest.raises(ValueError, match="tasks read the predictions of 'kind', but CTC has no distribution among"):
        jax.eval_shape(lambda: make_model(scheme, task_list).init(jax.random.key(0), make_batch(), train=False))
    model = make_model(scheme, fusion=fusion.Stacking(width=WIDTH))
    message = "Stacking answers for each modality apart, but tasks read the predictions of 'kind'"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


@pytest.mark.parametrize('name', sharing.__all__)
def test_every_scheme_shares_each_modality_behind_a_fusion_of_decisions(name):
    model = make_model(getattr(sharing, name)(NAMES, WIDTH), fusion=fusion.DecisionAverage(width=WIDTH))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), make_batch(), train=False)[0])
    assert {task: prediction.shape for task, prediction in shapes.items()} == {'kind': (ROWS, 3), 'size': (ROWS, 2)}
