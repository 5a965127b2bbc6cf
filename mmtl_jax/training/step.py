"""One training step, in two halves, and what keeps it safe: tasks sit out rather than spoil the shared parameters.

The gradient depends on the shapes of the batch and is compiled for each; the update does not and is compiled once.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmtl_jax.balancing import Balancer, Signals
from mmtl_jax.core.tree import all_finite, path_string
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.tasks import Task
from mmtl_jax.training.objective import make_loss_vector
from mmtl_jax.training.state import TrainState


@struct.dataclass
class Outcome:
    """What the gradient of one batch comes with; T tasks.

    Attributes:
      losses: `[T]`, 0 for the tasks that sat out.
      counts: `[T]` float, rows that counted, 0 for the tasks that sat out.
      weights: `[T]`, the balancer's.
      metrics: task -> metric -> (sum, count).
      sound: `[T]` bool, the task took part.
      bad: `[T + 1]` bool, the task, and last the whole step, sat out because something was not finite.
      balancer: the balancer's state after the step.
      variables: the model's non-parameter collections after the step.
    """

    losses: Array
    counts: Array
    weights: Array
    metrics: dict[str, dict[str, tuple[Array, Array]]]
    sound: Array
    bad: Array
    balancer: PyTree
    variables: PyTree


def make_gradient(
    model: nn.Module, tasks: Sequence[Task], balancer: Balancer
) -> Callable[[TrainState, Batch], tuple[PyTree, Outcome]]:
    """Returns the pure function `(state, batch) -> (gradients, outcome)`; of the state it leaves the optimizer alone.

    One forward pass, then one backward pass with the balancer's weights as the cotangent of the loss vector. A task
    without a labelled row, with a non-finite loss or with a non-finite gradient sits out: weight 0, its part of the
    balancer untouched, the others balanced as if it did not exist.

    Raises:
      ValueError: the balancer needs more than the losses of one batch before its step.
    """
    asked = {
        'needs': (balancer.needs, 'losses'),
        'heads': (balancer.heads, 'weighted'),
        'splits': (balancer.splits, 1),
        'after': (balancer.after, None),
    }
    for name, (got, taken) in asked.items():
        if got != taken:
            raise ValueError(
                f'the training step takes balancers with {name}={taken!r}, got {got!r}; outside the trainer, '
                'balancing.aggregate takes them all.'
            )
    loss_vector = make_loss_vector(model, tasks)
    names = [task.name for task in tasks]

    def gradient(state: TrainState, batch: Batch) -> tuple[PyTree, Outcome]:
        key = jax.random.fold_in(state.key, state.step)

        def forward(params, probes):
            return loss_vector(params, probes, state.variables, batch, key)

        losses, backward, measured = jax.vjp(forward, state.params, jnp.zeros(len(names)), has_aux=True)
        labelled = measured.counts > 0
        active = labelled & jnp.isfinite(losses)
        weights, _ = balancer.update(signals(losses, active), state.balancer)
        gradients, held_back = backward(jnp.where(active, weights, 0.0))
        # Without the barrier XLA merges the backward pass into each of the checks below, and compiles for longer.
        gradients, held_back = jax.lax.optimization_barrier((gradients, held_back))
        gradients, heads_finite = drop_bad_heads(gradients, names)
        sound = active & heads_finite & (held_back == 0)
        # The weights that count are those of the tasks that took part; with nothing held back they are the same.
        weights, balancer_state = balancer.update(signals(losses, sound), state.balancer)
        finite = all_finite((gradients, measured.variables))
        return gradients, Outcome(
            losses=jnp.where(sound, losses, 0.0),
            counts=jnp.where(sound, measured.counts, 0.0),
            weights=weights,
            metrics=measured.metrics,
            sound=sound,
            bad=jnp.append(labelled & ~sound, ~finite),
            balancer=balancer_state,
            variables=measured.variables,
        )

    return gradient


def make_update(
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float | None = None,
    max_bad_steps: int = 50,
) -> Callable[[TrainState, PyTree, Outcome], tuple[TrainState, dict[str, Any]]]:
    """Returns the pure function `(state, gradients, outcome) -> (state, measures)`.

    A task that sat out keeps its head and its head's optimizer state to the bit; if the summed gradient was not
    finite, everything stays as it was, but for the step number.

    Args:
      tasks: in the order of the loss vector.
      optimizer: an optax transformation.
      average_decay: of the exponential moving average of the parameters, or None.
      max_bad_steps: a run of this many non-finite steps stays on record in `state.bad_run` until the loop sees it.
    """
    names = [task.name for task in tasks]

    def update(state: TrainState, gradients: PyTree, outcome: Outcome) -> tuple[TrainState, dict[str, Any]]:
        def move() -> TrainState:
            updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            after = state.replace(
                params=params,
                variables=outcome.variables,
                optimizer=optimizer_state,
                balancer=outcome.balancer,
                average=moving_average(state.average, params, state.step, average_decay),
            )
            return keep_idle_heads(state, after, dict(zip(names, outcome.sound, strict=True)))

        finite = ~outcome.bad[-1]
        run = jnp.where(state.bad_run >= max_bad_steps, state.bad_run, 0)
        after = jax.lax.cond(finite, move, lambda: state).replace(
            step=state.step + 1, bad_run=jnp.where(outcome.bad, state.bad_run + 1, run)
        )
        return after, {
            'losses': outcome.losses,
            'counts': outcome.counts,
            'weights': outcome.weights,
            'metrics': outcome.metrics,
            'grad_norm': jnp.where(finite, optax.tree.norm(gradients), 0.0),
            'bad': outcome.bad,
        }

    return update


def signals(losses: Array, active: Array) -> Signals:
    """Returns the balancer's signals, with losses of 0 for the tasks that sit out."""
    return Signals(losses=jnp.where(active, losses, 0.0), active=active)


def drop_bad_heads(gradients: PyTree, names: Sequence[str]) -> tuple[PyTree, Array]:
    """Returns the gradients with each non-finite head's zeroed, and `[T]` bool: that task's head was finite."""
    heads = gradients['heads']
    finite = {name: all_finite(heads.get(name, ())) for name in names}
    heads = {
        name: jax.tree.map(lambda g, ok=finite[name]: jnp.where(ok, g, jnp.zeros_like(g)), head)
        for name, head in heads.items()
    }
    return {**gradients, 'heads': heads}, jnp.stack([finite[name] for name in names])


def moving_average(average: PyTree, params: PyTree, step: Array, decay: float | None) -> PyTree:
    """Returns the average after this step; early on it forgets faster, so that it never lags behind a young model."""
    if average is None:
        return None
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - decay)


def keep_idle_heads(before: TrainState, after: TrainState, sound: dict[str, Array]) -> TrainState:
    """Returns `after`, with the heads of the tasks that sit out, and their share of the optimizer's state, as `before`.

    Momentum and weight decay move parameters even where the gradient is zero; a task that sits out must not move.
    Optimizer states mirror the parameters, so a head's share of them is found by its path.
    """

    def choose(path, old, new):
        keys = path_string(path).split('/')
        head = next((b for a, b in itertools.pairwise(keys) if a == 'heads' and b in sound), None)
        return new if head is None else jnp.where(sound[head], new, old)

    return jax.tree_util.tree_map_with_path(choose, before, after)
