"""GradDrop: in every coordinate, only gradients of one sign."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.aggregate import combine
from mmtl_jax.balancing.arithmetic import along_tasks, next_key
from mmtl_jax.balancing.base import Balancer, Rows, Signals, check_length
from mmtl_jax.core.types import Array, PyTree


def graddrop(leak: float | Sequence[float] = 0.0, *, seed: int = 0) -> Balancer:
    r"""Returns GradDrop, which keeps one sign in every coordinate (Chen et al., 2010.06808, algorithm 1).

    In every coordinate, with P = (1 + sum of g_t / sum of |g_t|) / 2 and a uniform random number U, the positive
    gradients are kept where U < P and the negative ones elsewhere; of those dropped, the share `leak_t` stays. The
    direction is the sum of what is kept, no combination of the gradients: the result is `Rows`. The task-own heads
    receive their own task's gradient, as in LibMTL and TorchJD.

    Factor 1 against TorchJD for the same U. The paper and LibMTL apply it to the gradient at the shared representation,
    times the sign of the representation and summed over the batch; here, as in TorchJD and the FAMO authors' code,
    it is applied to the gradients as they are. There is no 1e-7 beside the sum of |g_t|.

    Degenerate cases: where all gradients have one sign, all are kept; where all are 0, so is the direction; equal
    gradients are kept, of opposite ones one or the other.

    Args:
      leak: share of a dropped gradient that stays, from 0 to 1, for all tasks or one per task.
      seed: of the random numbers.

    Raises:
      ValueError: a leak is not between 0 and 1; from `init`, their number is not the number of tasks.
    """
    leaks = tuple(leak) if isinstance(leak, Sequence) else (leak,)
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in leaks):
        raise ValueError(f'graddrop needs a leak between 0 and 1, got {leak}.')

    def init(num_tasks: int, gradient: PyTree = None) -> Array:
        if isinstance(leak, Sequence):
            check_length('leak', len(leak), num_tasks)
        return jax.random.PRNGKey(seed)

    def update(signals: Signals, key: Array) -> tuple[Rows, Array]:
        leaves, structure = jax.tree.flatten(signals.jacobian)
        kept = [
            keep_one_sign(leaf, jax.random.uniform(jax.random.fold_in(key, index), leaf.shape[1:]), leak)
            for index, leaf in enumerate(leaves)
        ]
        return Rows.summed(jax.tree.unflatten(structure, kept), signals), next_key(key)

    return Balancer(init=init, update=update, needs='jacobian', heads='own')


def keep_one_sign(gradients: Array, uniform: Array, leak: Any = 0.0) -> Array:
    """Returns the gradients with, in every coordinate, those of one sign whole and the share `leak` of the others.

    Args:
      gradients: `[T, ...]`, rows of zeros for inactive tasks.
      uniform: `[...]`, numbers from [0, 1) that choose the signs.
      leak: a number, or one per task.
    """
    # A product with ones, since XLA for CPUs is many times slower at reducing a leading axis.
    total, size = combine(jnp.ones(len(gradients), gradients.dtype), (gradients, jnp.abs(gradients)))
    # U < P, multiplied out.
    positive = uniform * 2 * size < size + total
    keep = (gradients > 0) == positive[None]
    shares = along_tasks(jnp.asarray(leak, gradients.dtype), gradients)
    return jnp.where(keep, gradients, shares * gradients)
