"""What a balancer is: a pair of pure functions, shaped like `optax.GradientTransformation`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from mmtl_jax.core.types import Array, PyTree


@struct.dataclass
class Signals:
    """What a balancer may look at in one step, T tasks.

    Attributes:
      losses: `[T]`; of an inactive task undefined, NaN included.
      active: `[T]` bool, False = no labelled row in this batch, or a loss or gradient that is not finite.
      gramian: `[T, T]` inner products of the tasks' gradients, for a balancer that needs 'gramian'.
      jacobian: the tasks' gradients, a pytree with a leading task axis, for a balancer that needs 'jacobian'.
    """

    losses: Array
    active: Array
    gramian: Array | None = None
    jacobian: PyTree = None


class Balancer(NamedTuple):
    """A balancing method.

    An inactive task gets the weight 0, its part of the state stays as it was, and the others are balanced as if it
    did not exist.

    Attributes:
      init: number of tasks -> state, a pytree of arrays.
      update: (signals, state) -> (weights `[T]`, state). The weights are the cotangent of the loss vector: the shared
        parameters get the sum over the tasks of weight times gradient.
      needs: which signals beside `active`: 'losses', 'gramian' or 'jacobian'.
      heads: what the task-own parameters get: 'weighted' (weight times gradient) or 'own' (the task's gradient).
    """

    init: Callable[[int], Any]
    update: Callable[[Signals, Any], tuple[PyTree, Any]]
    needs: str = 'losses'
    heads: str = 'weighted'


def mask_inactive(weights: Array, active: Array) -> Array:
    """Returns the weights `[T]` with 0 for the inactive tasks."""
    return jnp.where(active, weights, jnp.zeros_like(weights))


def check_length(name: str, got: int, num_tasks: int) -> None:
    """Raises a `ValueError` unless a per-task argument has one entry per task."""
    if got != num_tasks:
        raise ValueError(f'{name} needs one entry per task: got {got} for {num_tasks} tasks.')
