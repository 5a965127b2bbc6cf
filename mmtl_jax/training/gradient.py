"""The gradient of one batch: one forward pass, and as many backward passes as the balancer needs.

A task without a labelled row, with a non-finite loss or with a non-finite gradient sits out: weight 0, its part of the
balancer untouched, the others balanced as if it did not exist.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmtl_jax.balancing import Balancer, Rows, Signals
from mmtl_jax.balancing.aggregate import direction_of, mask_rows
from mmtl_jax.balancing.gramian import inner_products, sound_gramian
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.tasks import Task
from mmtl_jax.training.backward import Cotangents, Shared, at_features, at_parameters, through_losses
from mmtl_jax.training.objective import Measured, make_objective, shared_parameters
from mmtl_jax.training.state import TrainState

LEVELS = ('parameters', 'features')
WAYS = ('auto', 'vmap', 'unrolled')


@dataclasses.dataclass(frozen=True)
class Jacobian:
    """Where and how the tasks' gradients are taken.

    Attributes:
      level: `'parameters'`: by all shared parameters; `'features'`: by the features that the sharing scheme and the
        heads take, with one backward pass from there on.
      jacobian: how many backward passes run at once: `'vmap'` all, `'unrolled'` one, a number that many, which takes
        the less memory the smaller it is; `'auto'` chooses by the platform.
      record_every: steps between two measurements of the tasks' gradients where the balancer needs none; None for none.
    """

    level: str = 'parameters'
    jacobian: str | int = 'auto'
    record_every: int | None = 100

    def __post_init__(self):
        """Checks the values."""
        if self.level not in LEVELS:
            raise ValueError(f'balancing.level is {self.level!r}; it must be one of {LEVELS}.')
        number = isinstance(self.jacobian, int) and not isinstance(self.jacobian, bool) and self.jacobian >= 1
        if not number and self.jacobian not in WAYS:
            raise ValueError(
                f'balancing.jacobian is {self.jacobian!r}; it must be one of {WAYS}, or how many backward passes run '
                'at once.'
            )
        if self.record_every is not None and self.record_every < 1:
            raise ValueError(f'balancing.record_every is {self.record_every}; it must be at least 1, or None.')

    def chunk_size(self, num_tasks: int) -> int | None:
        """Returns how many backward passes run at once, None for the platform's choice."""
        return {'auto': None, 'vmap': num_tasks, 'unrolled': 1}.get(self.jacobian, self.jacobian)


@struct.dataclass
class Outcome:
    """What the gradient of one batch comes with; T tasks.

    Attributes:
      losses: `[T]`, 0 for the tasks that sat out.
      counts: `[T]` float, rows that counted, 0 for the tasks that sat out.
      weights: `[T]`, the balancer's; None where its direction is no weighted sum of gradients.
      gramian: `[T, T]` of the tasks' gradients; None where the balancer needs none.
      metrics: task -> metric -> (sum, count).
      sound: `[T]` bool, the task took part.
      bad: `[T + 1]` bool, the task, and last the whole step, sat out because something was not finite.
      balancer: the balancer's state after the step.
      variables: the model's non-parameter collections after the step.
      recorded: name in `metrics.jsonl` -> a number of this step.
    """

    losses: Array
    counts: Array
    weights: Array | None
    gramian: Array | None
    metrics: dict[str, dict[str, tuple[Array, Array]]]
    sound: Array
    bad: Array
    balancer: PyTree
    variables: PyTree
    recorded: dict[str, Array] = struct.field(default_factory=dict)


@struct.dataclass
class Pass:
    """One forward pass, and the backward pass through the heads; T tasks.

    Attributes:
      losses: `[T]`.
      measured: what else the forward pass told.
      finite: `[T]` bool: the loss, and its gradients by the head and by what the head takes, are finite.
      heads: task -> gradient of its own loss by the parameters of its head.
      cotangents: task -> gradients of its loss by what its head takes.
    """

    losses: Array
    measured: Measured
    finite: Array
    heads: dict[str, PyTree]
    cotangents: Cotangents

    @property
    def active(self) -> Array:
        """`[T]` bool: the task has a labelled row and everything so far is finite."""
        return (self.measured.counts > 0) & self.finite


Forward = Callable[[TrainState, Batch, Array], tuple[Shared, Pass]]


def make_gradient(
    model: nn.Module, tasks: Sequence[Task], balancer: Balancer, jacobian: Jacobian | None = None
) -> Callable[[TrainState, Batch], tuple[PyTree, Outcome]]:
    """Returns the pure function `(state, batch) -> (gradients, outcome)`; of the state it leaves the optimizer alone.

    Raises:
      ValueError: the balancer wants gradients of parts of the batch, and the level is that of the features.
    """
    jacobian = jacobian or Jacobian()
    names = [task.name for task in tasks]
    forward = make_forward(model, tasks, balancer.needs, jacobian, factored=balancer.splits == 1)
    if balancer.splits == 1:
        return functools.partial(_gradient, forward, balancer, names)
    if jacobian.level == 'features':
        raise ValueError(
            'this balancer compares gradients of different parts of the batch, which have no features in common; set '
            "balancing.level to 'parameters'."
        )
    return functools.partial(_gradient_of_splits, forward, balancer, names)


def make_measure(
    model: nn.Module, tasks: Sequence[Task], jacobian: Jacobian
) -> Callable[[TrainState, Batch], dict[str, Array]]:
    """Returns the pure function `(state, batch) -> {'gramian': [T, T], 'active': [T]}` of the tasks' gradients."""
    if jacobian.jacobian == 'auto':
        # It runs seldom, so that what counts is its compilation, which is shorter the fewer passes are written out.
        jacobian = dataclasses.replace(jacobian, jacobian=8)
    forward = make_forward(model, tasks, 'gramian', jacobian)

    def measure(state: TrainState, batch: Batch) -> dict[str, Array]:
        shared, done = forward(state, batch, jax.random.fold_in(state.key, state.step))
        if jacobian.level == 'parameters' and not jax.tree.leaves(shared_parameters(state.trained)):
            return {'gramian': jnp.zeros((len(tasks), len(tasks))), 'active': done.active}
        gramian, active = sound_gramian(shared.gradients(done.cotangents).gramian(), done.active)
        return {'gramian': gramian, 'active': active}

    return measure


def make_forward(
    model: nn.Module, tasks: Sequence[Task], needs: str, jacobian: Jacobian, *, factored: bool = True
) -> Forward:
    """Returns `(state, batch, key) -> (the shared part with the way back through it, the pass)`."""
    objective = make_objective(model, tasks)
    names = [task.name for task in tasks]
    if needs == 'losses':
        through = through_losses
    else:
        options = {'num_tasks': len(tasks), 'chunk_size': jacobian.chunk_size(len(tasks))}
        if jacobian.level == 'parameters':
            through = functools.partial(at_parameters, factored=factored and needs == 'gramian', **options)
        else:
            through = functools.partial(at_features, **options)

    def forward(state: TrainState, batch: Batch, key: Array) -> tuple[Shared, Pass]:
        trained, whole = state.trained, objective.completed(state.params)
        shared = through(whole, shared_parameters(trained), state.variables, batch, key)

        def through_heads(heads, floats):
            features = shared.layout.join(floats, shared.rest)
            return whole.losses({'heads': heads}, shared.variables, features, batch, key)

        floats = shared.layout.distribute(shared.floats)
        losses, back, measured = jax.vjp(through_heads, trained['heads'], floats, has_aux=True)
        # A head reaches no other task's loss, so that one pass gives all tasks their own gradients. Without the barrier
        # XLA merges it into each of the checks below, and compiles for longer.
        heads, cotangents = jax.lax.optimization_barrier(back(jnp.ones_like(losses)))
        cotangents = {name: cotangents[name] for name in names}
        finite = jnp.stack([all_finite((heads.get(name, ()), cotangents[name])) for name in names])
        return shared, Pass(losses, measured, finite & jnp.isfinite(losses), heads, cotangents)

    return forward


def _gradient(
    forward: Forward, balancer: Balancer, names: Sequence[str], state: TrainState, batch: Batch
) -> tuple[PyTree, Outcome]:
    shared, done = forward(state, batch, jax.random.fold_in(state.key, state.step))
    active, gradients, gramian, rows = done.active, None, None, None
    if balancer.needs != 'losses':
        gradients = shared.gradients(done.cotangents)
        gramian, active = sound_gramian(gradients.gramian(), active)
        rows = gradients.rows(active) if balancer.needs == 'jacobian' else None
    losses = jnp.where(active, done.losses, 0.0)
    weights, balancer_state = balancer.update(Signals(losses, active, gramian, rows), state.balancer)
    direction = shared.direction(done.cotangents, weights, active, gradients)
    total = None if isinstance(weights, Rows) else weights
    heads = _weighted_heads(done.heads, jnp.ones_like(losses) if balancer.heads == 'own' else total, active, names)
    return _finished({**direction, 'heads': heads}, done, losses, active, total, gramian, balancer_state)


def _gradient_of_splits(
    forward: Forward, balancer: Balancer, names: Sequence[str], state: TrainState, batch: Batch
) -> tuple[PyTree, Outcome]:
    """Like `_gradient`, with a forward pass for each of S parts of the batch; a task is active if it is so in all."""
    splits = balancer.splits

    def of_part(batch: Batch, key: Array) -> tuple[Pass, PyTree]:
        shared, done = forward(state, batch, key)
        rows = shared.gradients(done.cotangents).rows(jnp.ones_like(done.finite))
        return done.replace(cotangents={}), rows

    # Neighbours go to different parts, so that the parts of a batch that is spread over devices are so too.
    parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, splits, *leaf.shape[1:]), 1, 0), batch)
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), splits)
    done, rows = jax.vmap(of_part)(parts, keys)
    # A task whose gradient is not finite has no finite norm, so that its rows are dropped here.
    gramian, active = sound_gramian(inner_products(rows, leading=2), jnp.all(done.active, axis=0))
    rows = mask_rows(rows, active, leading=2)
    losses = jnp.where(active, done.losses, 0.0)
    signals = Signals(losses, active, gramian, rows if balancer.needs == 'jacobian' else None)
    weights, balancer_state = balancer.update(signals, state.balancer)
    direction = direction_of(weights, rows)
    total = None if isinstance(weights, Rows) else weights.sum(axis=0)
    shares = jnp.full_like(losses, 1 / splits) if balancer.heads == 'own' else weights
    heads = jax.vmap(lambda heads, share: _weighted_heads(heads, share, active, names))(done.heads, shares)
    heads = jax.tree.map(lambda leaf: leaf.sum(axis=0), heads)
    measured = Measured(
        counts=done.measured.counts.sum(axis=0),
        metrics=jax.tree.map(lambda leaf: leaf.sum(axis=0), done.measured.metrics),
        variables=jax.tree.map(lambda leaf: leaf.mean(axis=0).astype(leaf.dtype), done.measured.variables),
    )
    done = done.replace(measured=measured)
    mean = gramian.mean(axis=(0, 1))
    return _finished({**direction, 'heads': heads}, done, losses.mean(axis=0), active, total, mean, balancer_state)


def _weighted_heads(heads: dict[str, PyTree], weights: Array, active: Array, names: Sequence[str]) -> dict[str, PyTree]:
    """Returns the gradients of the heads times the weights `[T]`, 0 for tasks that sit out."""

    def weighted(task: int, leaf: Array) -> Array:
        return jnp.where(active[task], weights[task].astype(leaf.dtype) * leaf, jnp.zeros_like(leaf))

    return {
        name: jax.tree.map(functools.partial(weighted, task), heads[name])
        for task, name in enumerate(names)
        if name in heads
    }


def _finished(
    gradients: PyTree,
    done: Pass,
    losses: Array,
    active: Array,
    weights: Array | None,
    gramian: Array | None,
    balancer_state: PyTree,
) -> tuple[PyTree, Outcome]:
    finite = all_finite((gradients, done.measured.variables))
    labelled = done.measured.counts > 0
    return gradients, Outcome(
        losses=losses,
        counts=jnp.where(active, done.measured.counts, 0.0),
        weights=weights,
        gramian=gramian,
        metrics=done.measured.metrics,
        sound=active,
        bad=jnp.append(labelled & ~active, ~finite),
        balancer=balancer_state,
        variables=done.measured.variables,
    )
