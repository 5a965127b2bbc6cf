"""What a balancer is: a pair of pure functions, shaped like `optax.GradientTransformation`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mmtl_jax.core.types import Array, PyTree


@struct.dataclass
class Signals:
    """What a balancer may look at in one step, T tasks; a balancer with S > 1 splits gets a leading axis S.

    Attributes:
      losses: `[T]`, or `[S, T]`; of an inactive task undefined, NaN included.
      active: `[T]` bool, False = no labelled row in this batch, or a loss or gradient that is not finite.
      gramian: `[T, T]` inner products of the tasks' gradients, for a balancer that needs 'gramian'; rows and columns
        of inactive tasks are 0. `[S, S, T, T]` with splits: entry `[a, b, i, j]` is that of task i on split a and task
        j on split b.
      jacobian: the tasks' gradients, a pytree with a leading task axis, or axes `[S, T]`, for a balancer that needs
        'jacobian'; rows of inactive tasks are 0. Such a balancer gets the Gramian too.
    """

    losses: Array
    active: Array
    gramian: Array | None = None
    jacobian: PyTree = None


@struct.dataclass
class Rows:
    """Stands in place of the weights where the direction is no combination of this step's gradients.

    Attributes:
      rows: like the Jacobian, finite; the direction is their weighted sum over the task axis.
      weights: `[T]` or `[S, T]`, 0 for inactive tasks.
    """

    rows: PyTree
    weights: Array

    @classmethod
    def summed(cls, rows: PyTree, signals: Signals) -> 'Rows':
        """Returns the rows with the weight 1 for each active task."""
        return cls(rows, jnp.broadcast_to(signals.active, signals.losses.shape).astype(signals.losses.dtype))


class Balancer(NamedTuple):
    """A balancing method.

    An inactive task gets the weight 0, its part of the state stays as it was, and the others are balanced as if it
    did not exist.

    Attributes:
      init: number of tasks -> state, a pytree of arrays. For a balancer that needs 'jacobian': number of tasks and an
        example of one task's gradient (arrays or `ShapeDtypeStruct`s) -> state.
      update: (signals, state) -> (weights `[T]` or `[S, T]`, state). The shared parameters get the sum over the tasks
        (and splits) of weight times gradient; with weights alone, they are the cotangent of the loss vector. A
        balancer whose direction is no such sum returns `Rows`.
      needs: which signals beside `losses` and `active`: 'losses' (none), 'gramian' or 'jacobian'.
      heads: what the task-own parameters get: 'weighted' (weight times gradient) or 'own' (the task's gradient).
      splits: into how many equal parts the batch is split, for methods that need independent gradients.
      after: (losses `[T]` of the same batch after the step, active `[T]`, state) -> state, for a method that looks at
        what the step did; None otherwise.
      validated: (losses `[T]` on the validation split, known `[T]` bool, state) -> state, for a method that looks at
        evaluations; None otherwise.
    """

    init: Callable[..., Any]
    update: Callable[[Signals, Any], tuple[Array | Rows, Any]]
    needs: str = 'losses'
    heads: str = 'weighted'
    splits: int = 1
    after: Callable[[Array, Array, Any], Any] | None = None
    validated: Callable[[Array, Array, Any], Any] | None = None


def from_weighting(weighting: Callable[[Array, Array], Array], heads: str = 'own') -> Balancer:
    """Returns the balancer without state whose weights are a function of the Gramian alone.

    Args:
      weighting: (Gramian `[T, T]` with zeros for inactive tasks, active `[T]`) -> weights `[T]`; what it says of
        inactive tasks is replaced by 0.
      heads: what the task-own parameters get, 'own' or 'weighted'.

    Raises:
      ValueError: `heads` is something else.
    """
    if heads not in ('own', 'weighted'):
        raise ValueError(f"heads get 'own' or 'weighted' gradients, got {heads!r}.")

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        return mask_inactive(weighting(signals.gramian, signals.active), signals.active), state

    return Balancer(init=lambda num_tasks: (), update=update, needs='gramian', heads=heads)


def initial_state(balancer: Balancer, num_tasks: int, gradient: PyTree = None) -> Any:
    """Returns the balancer's first state; `gradient`, one task's example, matters only where it needs 'jacobian'."""
    return balancer.init(num_tasks, gradient) if balancer.needs == 'jacobian' else balancer.init(num_tasks)


def where_task(mask: Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns `new` for the tasks where `mask [T]` is True and `old` for the others; every leaf leads with T."""
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape((-1,) + (1,) * (jnp.ndim(a) - 1)), a, b), new, old)


def mask_inactive(values: PyTree, active: Array) -> PyTree:
    """Returns the values, every leaf with a leading task axis, with 0 for the inactive tasks, whatever stood there."""
    return where_task(active, values, jax.tree.map(jnp.zeros_like, values))


def active_sum(values: Array, active: Array) -> Array:
    """Returns the sum over the active tasks of `values [T]`."""
    return jnp.sum(mask_inactive(values, active))


def active_mean(values: Array, active: Array) -> Array:
    """Returns the mean over the active tasks of `values [T]`; 0 if there is none."""
    return active_sum(values, active) / jnp.maximum(jnp.sum(active), 1)


def active_softmax(values: Array, active: Array) -> Array:
    """Returns the softmax over the active tasks of `values [T]`, 0 for the others."""
    top = jnp.max(values, initial=-jnp.inf, where=active)
    powers = jnp.where(active, jnp.exp(jnp.where(active, values - top, 0.0)), 0.0)
    # With any task active the sum is at least exp(0).
    return powers / jnp.maximum(jnp.sum(powers), 1.0)


def positive_tasks(method: str, losses: Array, active: Array) -> Array:
    """Returns `[T]` bool, the active tasks with a positive loss: those of whose loss there is a logarithm.

    Raises:
      ValueError: an active task has a negative loss. Under `jax.jit` no value is known, and the task just sits out.
    """
    if not isinstance(losses, jax.core.Tracer) and not isinstance(active, jax.core.Tracer):
        negative = np.flatnonzero(np.asarray(active) & (np.asarray(losses) < 0))
        if negative.size:
            raise ValueError(
                f'{method} needs losses that are not negative, got {float(losses[negative[0]]):.4g} for task '
                f'{negative[0]}; shift the loss by its lower bound.'
            )
    return active & (losses >= jnp.finfo(jnp.result_type(losses, jnp.float32)).tiny)


def check_length(name: str, got: int, num_tasks: int) -> None:
    """Raises a `ValueError` unless a per-task argument has one entry per task."""
    if got != num_tasks:
        raise ValueError(f'{name} needs one entry per task: got {got} for {num_tasks} tasks.')
