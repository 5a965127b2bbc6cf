"""One training step, and what keeps it safe: tasks sit out rather than spoil the shared parameters."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmtl_jax.balancing import Balancer, Signals
from mmtl_jax.core.tree import all_finite, path_string
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.tasks import Task
from mmtl_jax.training.objective import make_loss_vector
from mmtl_jax.training.state import TrainState


def make_train_step(
    model: nn.Module,
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    balancer: Balancer,
    *,
    average_decay: float | None = None,
    max_bad_steps: int = 50,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """Returns the pure step `(state, batch) -> (state, measures)`.

    One forward pass, then one backward pass with the balancer's weights as the cotangent of the loss vector. A task
    without a labelled row, with a non-finite loss or with a non-finite gradient sits out: weight 0, its head, its
    head's optimizer state and its part of the balancer untouched, the others balanced as if it did not exist. If the
    summed gradient is still not finite, the whole step sits out.

    Args:
      model: `MultiModalMultiTask`.
      tasks: in the order of the loss vector.
      optimizer: an optax transformation.
      balancer: a balancer that needs losses only.
      average_decay: of the exponential moving average of the parameters, or None.
      max_bad_steps: a run of this many non-finite steps stays on record in `state.bad_run` until the loop sees it.
    """
    if balancer.needs != 'losses':
        raise ValueError(f'the training step has the losses for a balancer, this one needs {balancer.needs!r}.')
    loss_vector = make_loss_vector(model, tasks)
    names = [task.name for task in tasks]

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(state.key, state.step)

        def forward(params, probes):
            return loss_vector(params, probes, state.variables, batch, key)

        losses, backward, measured = jax.vjp(forward, state.params, jnp.zeros(len(names)), has_aux=True)
        labelled = measured.counts > 0
        active = labelled & jnp.isfinite(losses)
        weights, _ = balancer.update(signals(losses, active), state.balancer)
        gradients, held_back = backward(jnp.where(active, weights, 0.0))
        gradients, heads_finite = drop_bad_heads(gradients, names)
        sound = active & heads_finite & (held_back == 0)
        # The weights that count are those of the tasks that took part; with nothing held back they are the same.
        weights, balancer_state = balancer.update(signals(losses, sound), state.balancer)
        finite = all_finite((gradients, measured.variables))

        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        bad = jnp.append(labelled & ~sound, ~finite)
        after = state.replace(
            params=params,
            variables=measured.variables,
            optimizer=optimizer_state,
            balancer=balancer_state,
            average=moving_average(state.average, params, state.step, average_decay),
        )
        after = keep_where_idle(state, after, finite, dict(zip(names, sound, strict=True)))
        after = after.replace(
            step=state.step + 1,
            bad_run=jnp.where(bad, state.bad_run + 1, jnp.where(state.bad_run >= max_bad_steps, state.bad_run, 0)),
        )
        return after, {
            'losses': jnp.where(sound, losses, 0.0),
            'counts': jnp.where(sound, measured.counts, 0.0),
            'weights': weights,
            'metrics': measured.metrics,
            'grad_norm': jnp.where(finite, optax.global_norm(gradients), 0.0),
            'bad': bad,
        }

    return train_step


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


def keep_where_idle(before: TrainState, after: TrainState, finite: Array, sound: dict[str, Array]) -> TrainState:
    """Returns `after`, but `before` for the head of each idle task, and for everything if the step was not finite.

    Momentum and weight decay move parameters even where the gradient is zero; a task that sits out must not move.
    Optimizer states mirror the parameters, so a head's share of them is found by its path.
    """

    def choose(path, old, new):
        keys = path_string(path).split('/')
        head = next((b for a, b in itertools.pairwise(keys) if a == 'heads' and b in sound), None)
        take = finite if head is None else finite & sound[head]
        return jnp.where(take, new, old)

    kept = jax.tree_util.tree_map_with_path(choose, before.replace(key=None), after.replace(key=None))
    return kept.replace(key=before.key)
