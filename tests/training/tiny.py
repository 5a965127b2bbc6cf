"""A model that compiles in a second, and batches for it: a table and a text, a class and a number."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmtl_jax import balancing, encoders, fusion, sharing, tasks
from mmtl_jax.core.types import Batch, Ragged
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import make_gradient
from mmtl_jax.training.state import init_state
from mmtl_jax.training.update import make_look_back, make_update

ROWS = 8
TASKS = (tasks.classification('kind', num_classes=3), tasks.regression('size', num_outputs=1))


def make_model(task_list=TASKS, dropout_rate=0.0):
    return MultiModalMultiTask(
        encoders={
            'table': encoders.TabularMLP(width=8, depth=1, dropout_rate=dropout_rate),
            'text': encoders.BagOfEmbeddings(vocab_size=11, width=8),
        },
        fusion=fusion.Concat(width=8),
        sharing=sharing.Hard(tasks=tuple(task.name for task in task_list), width=8),
        heads={task.name: task.head for task in task_list},
        reads={task.name: task.reads for task in task_list},
    )


def make_batch(seed, rows=ROWS, labelled=None, length=5):
    random = np.random.default_rng(seed)
    table = random.normal(size=(rows, 4)).astype(np.float32)
    batch = Batch(
        inputs={
            'table': table,
            'text': Ragged(random.integers(1, 11, (rows, length)).astype(np.int32), np.ones((rows, length), bool)),
        },
        present={'table': np.ones(rows, bool), 'text': random.random(rows) > 0.3},
        targets={'kind': (table[:, 0] > 0).astype(np.int32), 'size': table[:, 1:2] * 2.0},
        labelled={name: np.full(rows, (labelled or {}).get(name, True)) for name in ('kind', 'size')},
        real=np.ones(rows, bool),
    )
    return jax.tree.map(jnp.asarray, batch)


def make_state(model, optimizer, balancer, task_list=TASKS, average=False, seed=0, level='parameters'):
    return init_state(
        model,
        optimizer,
        balancer,
        batch=make_batch(0),
        num_tasks=len(task_list),
        seed=seed,
        average=average,
        level=level,
    )


def make_step(task_list, balancer, optimizer, jacobian=None, **step_options):
    """Returns a jitted step: gradient, update and, where the balancer asks for it, the look back."""
    model = make_model(task_list)
    gradient = make_gradient(model, task_list, balancer, jacobian)
    update = make_update(task_list, optimizer, **step_options)

    def step(state, batch):
        state, measures = update(state, *gradient(state, batch))
        if balancer.after is not None:
            look_back = make_look_back(model, task_list, balancer)
            state = state.replace(balancer=look_back(state, batch, measures['active']))
        return state, measures

    return jax.jit(step)


def make_all(task_list=TASKS, optimizer=None, balancer=None, **step_options):
    """Returns a jitted step and a state."""
    optimizer = optimizer or optax.adamw(1e-2, weight_decay=0.1)
    balancer = balancer or balancing.equal()
    average = step_options.get('average_decay') is not None
    state = make_state(make_model(task_list), optimizer, balancer, task_list, average=average)
    return make_step(task_list, balancer, optimizer, **step_options), state
