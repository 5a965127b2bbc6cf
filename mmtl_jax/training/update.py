"""The second half of a step: what the gradient of a batch does to the state, and what a balancer makes of the outcome.

The gradient depends on the shapes of the batch and is compiled for each; the update does not and is compiled once.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmtl_jax.balancing import Balancer
from mmtl_jax.core.tree import path_string
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.tasks import Task
from mmtl_jax.training.freezing import join
from mmtl_jax.training.gradient import Outcome
from mmtl_jax.training.objective import make_objective, shared_parameters
from mmtl_jax.training.state import TrainState


def make_update(
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float | None = None,
    max_bad_steps: int = 50,
) -> Callable[[TrainState, PyTree, Outcome], tuple[TrainState, dict[str, Any]]]:
    """Returns the pure function `(state, gradients, outcome) -> (state, measures)`.

    A task that sat out keeps its head and its head's optimizer state to the bit, and a parameter whose update is 0 is
    kept so too; if the summed gradient was not finite, everything stays as it was, but for the step number.

    Args:
      tasks: in the order of the loss vector.
      optimizer: an optax transformation.
      average_decay: of the exponential moving average of the parameters, or None.
      max_bad_steps: a run of this many non-finite steps stays on record in `state.bad_run` until the loop sees it.
    """
    names = [task.name for task in tasks]

    def update(whole: TrainState, gradients: PyTree, outcome: Outcome) -> tuple[TrainState, dict[str, Any]]:
        # What is frozen is left out of the branches below, which would copy it.
        state = whole.replace(params=whole.trained)

        def move() -> TrainState:
            updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
            params = add_updates(state.params, updates)
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
        return after.replace(params=join(after.params, whole.params)), {
            'losses': outcome.losses,
            'counts': outcome.counts,
            'weights': outcome.weights,
            'gramian': outcome.gramian,
            'active': outcome.sound & finite,
            'metrics': outcome.metrics,
            'grad_norm': jnp.where(finite, optax.tree.norm(gradients), 0.0),
            'bad': outcome.bad,
            'recorded': outcome.recorded,
        }

    return update


def make_look_back(
    model: nn.Module, tasks: Sequence[Task], balancer: Balancer
) -> Callable[[TrainState, Batch, Array], PyTree]:
    """Returns the pure function `(state after the step, its batch, active [T]) -> balancer state`.

    For a balancer that looks at what the step did (`Balancer.after`): one more forward pass with the same batch and the
    same random numbers. It changes nothing else, so that batch statistics see each batch once.
    """
    objective = make_objective(model, tasks)

    def look_back(state: TrainState, batch: Batch, active: Array) -> PyTree:
        key = jax.random.fold_in(state.key, state.step - 1)
        shared = shared_parameters(state.params)
        z, variables = objective.features(shared, state.variables, batch, key)
        features, variables = objective.share(shared, variables, z, key)
        losses, _ = objective.losses({'heads': state.params['heads']}, variables, features, batch, key)
        sound = active & jnp.isfinite(losses)
        return balancer.after(jnp.where(sound, losses, 0.0), sound, state.balancer)

    return look_back


def moving_average(average: PyTree, params: PyTree, step: Array, decay: float | None) -> PyTree:
    """Returns the average after this step; early on it forgets faster, so that it never lags behind a young model."""
    if average is None:
        return None
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    # The average of what stays as it is must be just that, which no rounding of two products gives.
    return jax.tree.map(lambda old, new: jnp.where(new == old, new, old + rate * (new - old)), average, params)


def add_updates(params: PyTree, updates: PyTree) -> PyTree:
    """Like `optax.apply_updates`, but what gets 0 stays to the bit: a sum would change -0.0 and numbers below 1e-38."""
    sums = optax.apply_updates(params, updates)
    return jax.tree.map(lambda old, update, new: jnp.where(update == 0, old, new), params, updates, sums)


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
