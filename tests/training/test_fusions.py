"""Fusions of decisions, and auxiliary tasks that learn what a fusion learns by itself, in the training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, encoders, fusion, sharing, tasks
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Batch
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.evaluation import make_eval_step
from mmtl_jax.training.gradient import Jacobian, make_gradient
from mmtl_jax.training.objective import make_objective
from mmtl_jax.training.state import init_state
from mmtl_jax.training.update import make_update
from tests import quick
from tests.fusion.test_decision import NAMES as DECISIONS

ROWS, WIDTH = 8, 6
OBJECTIVES = {
    'Autoencoder': ('reconstruction',),
    'Variational': ('reconstruction', 'kl', 'elbo'),
    'Factorized': ('reconstruction', 'mmd'),
    'MatrixFactorization': ('reconstruction',),
    'DeepCCA': ('cca',),
    'DeepBeliefNetwork': ('contrastive_divergence',),
}
QUESTIONS = (
    tasks.classification('kind', num_classes=3),
    tasks.multilabel('marks', num_labels=2),
    tasks.regression('size', num_outputs=1),
)
OPTIMIZER = optax.adam(1e-2)


def make_batch(seed: int = 0) -> Batch:
    """Returns rows of two tables; each lacks a modality or has both, and all tasks are labelled."""
    random = np.random.default_rng(seed)
    left, right = random.normal(size=(2, ROWS, 3)).astype(np.float32)
    present = {'left': np.arange(ROWS) % 4 != 1, 'right': np.arange(ROWS) % 4 != 2}
    targets = {
        'kind': (left[:, 0] > 0).astype(np.int32) + (right[:, 0] > 0),
        'marks': (left[:, 1:] > 0).astype(np.float32),
        'size': left[:, :1] + right[:, :1],
    }
    targets |= {name: np.zeros(ROWS, np.float32) for names in OBJECTIVES.values() for name in names}
    labelled = dict.fromkeys(targets, np.ones(ROWS, bool))
    return Batch({'left': left, 'right': right}, present, targets, labelled, np.ones(ROWS, bool))


def tasks_of(name: str) -> tuple[tasks.Task, ...]:
    return (*QUESTIONS[: 3 if name in DECISIONS else 1], *map(tasks.auxiliary, OBJECTIVES.get(name, ())))


def make_model(name: str, task_list) -> MultiModalMultiTask:
    more = {'components': 2} if name == 'DeepCCA' else {}
    return MultiModalMultiTask(
        encoders={side: encoders.TabularMLP(width=WIDTH, depth=1) for side in ('left', 'right')},
        fusion=getattr(fusion, name)(width=WIDTH, **more),
        sharing=sharing.Hard(tasks=tuple(task.name for task in task_list if task.reads == 'fused'), width=WIDTH),
        heads={task.name: task.head for task in task_list},
        reads={task.name: task.reads for task in task_list},
        modality_dropout={'left': 0.3},
    )


def start(name: str, balancer, level: str = 'parameters'):
    task_list = tasks_of(name)
    model = make_model(name, task_list)
    state = quick.jit(
        lambda: init_state(
            model, OPTIMIZER, balancer, batch=make_batch(), num_tasks=len(task_list), seed=0, average=False, level=level
        )
    )()
    return model, task_list, state


@functools.cache
def trained(name: str, method: str):
    """Returns the tasks, and the losses of two steps and of fifty more with the same compiled step."""
    balancer = getattr(balancing, method)()
    model, task_list, state = start(name, balancer)
    gradient, update = make_gradient(model, task_list, balancer, Jacobian()), make_update(task_list, OPTIMIZER)
    step = quick.jit(lambda state, batch: update(state, *gradient(state, batch)))
    losses = []
    for _ in range(52):
        state, measures = step(state, make_batch())
        losses.append(jax.device_get(measures['losses']))
    return task_list, model, state, np.array(losses)


SLOW = pytest.mark.slow
RUNS = [
    *(pytest.param(n, m, marks=() if (n, m) == ('Stacking', 'uncertainty') else SLOW)
      for n in DECISIONS for m in ('uncertainty', 'cagrad')),
    *(pytest.param(n, m, marks=() if (n, m) == ('DeepCCA', 'cagrad') else SLOW)
      for n in OBJECTIVES for m in ('uncertainty', 'cagrad')),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'method'), RUNS)
def test_every_task_learns_under_a_balancer_of_losses_and_one_of_gradients(name, method):
    task_list, model, state, losses = trained(name, method)
    assert np.isfinite(losses).all()
    assert np.all(losses >= 0), 'several balancers take the logarithm of a loss, or its inverse'
    assert all_finite(state.params)
    # Random draws and the balancing make single steps go either way.
    first, last = losses[:5].mean(axis=0), losses[-5:].mean(axis=0)
    learned = [task.name for task, before, after in zip(task_list, first, last, strict=True) if after < before]
    # The divergence grows while the code begins to say something.
    assert {task.name for task in task_list} - {'kl'} <= {*learned}
    sums = quick.jit(make_eval_step(model, task_list))(state.inference, make_batch())['sums']
    assert all(np.isfinite(total) and count == ROWS for total, count in (sums[task.name]['loss'] for task in task_list))


@pytest.mark.slow
def test_at_the_features_an_objective_is_balanced_by_its_own_value():
    balancer = balancing.cagrad()
    model, task_list, state = start('DeepCCA', balancer, level='features')
    gradient = quick.jit(make_gradient(model, task_list, balancer, Jacobian(level='features')))
    gradients, outcome = gradient(state, make_batch())
    assert all_finite(gradients)
    # The mean over the rows, which no other task sees.
    np.testing.assert_allclose(outcome.gramian[1], [0, 1 / ROWS], atol=1e-7)


def test_an_auxiliary_task_trains_the_fusion_and_not_the_heads():
    task_list, model, state, _ = trained('DeepCCA', 'cagrad')
    objective = make_objective(model, task_list)

    @quick.jit
    def gradient(params):
        def loss(params):
            z, variables = objective.features(params, state.variables, make_batch(), jax.random.key(0))
            features, variables = objective.share(params, variables, z, jax.random.key(0))
            losses, _ = objective.losses(params, variables, features, make_batch(), jax.random.key(0))
            return losses[[task.name for task in task_list].index('cca')]

        return jax.grad(loss)(params)

    found = gradient(state.params)
    for part, trains in (('encoders', True), ('fusion', True), ('heads', False)):
        assert any(jnp.any(leaf) for leaf in jax.tree.leaves(found[part])) == trains, part
