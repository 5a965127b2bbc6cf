"""Weights from learned homoscedastic uncertainty."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mmtl_jax.balancing import per_task
from mmtl_jax.balancing.base import Balancer, Signals, check_length, mask_inactive
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Array

KINDS = {'regression': 0.5, 'classification': 1.0}


class UncertaintyState(NamedTuple):
    """Attributes: log_variance `[T]`, the s of each task, and the optimizer's state, each leaf with a task axis."""

    log_variance: Array
    optimizer: Any


def uncertainty(
    learning_rate: float = 1e-3,
    *,
    kinds: str | Sequence[str] = 'regression',
    init_log_variance: float = 0.0,
    optimizer: str = 'adam',
) -> Balancer:
    r"""Returns uncertainty weighting (Kendall et al., 1705.07115).

    Each task has a log-variance s, learned together with the model by minimising, with c = 1/2 for a Gaussian
    likelihood (equation 7) and c = 1 for a softmax one (equation 10),

        sum over t of c_t exp(-s_t) L_t + s_t / 2.

    The weight of task t is c_t exp(-s_t), and the gradient of s_t is 1/2 - c_t exp(-s_t) L_t, which this balancer
    follows with an optimizer of its own: weights of step k come from s before the update of step k. In LibMTL
    (which starts at s = -0.5) and TorchJD (s = 0), s belongs to the model's optimizer and so gets its learning rate,
    schedule, clipping and weight decay, which pulls every weight to c; here nothing but the formula moves s. Both use
    the Gaussian form for every task, as is the default here; the factor against both is 1. Every task has its own
    optimizer state, so a task that sits out a step is as if the step had not been.

    Task-own parameters get their gradient times the weight: they minimise the same weighted sum. Where a loss is 0 or
    negative, s falls for as long as it is, and the weight grows with it, up to the square root of the largest number.

    Args:
      learning_rate: of the log-variances.
      kinds: 'regression' (c = 1/2) or 'classification' (c = 1), for all tasks or one per task.
      init_log_variance: s at the start.
      optimizer: name of an optax optimizer that takes a learning rate.

    Raises:
      ValueError: an unknown kind or optimizer; from `init`, the number of kinds is not the number of tasks.
    """
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in KINDS:
            raise ValueError(f'uncertainty knows the kinds {sorted(KINDS)}, got {kind!r}.')
    transformation = build(optimizer, optax, learning_rate=learning_rate)

    def init(num_tasks: int) -> UncertaintyState:
        if not isinstance(kinds, str):
            check_length('kinds', len(kinds), num_tasks)
        return UncertaintyState(*per_task.initial(num_tasks, init_log_variance, transformation))

    def update(signals: Signals, state: UncertaintyState) -> tuple[Array, UncertaintyState]:
        each = [kinds] * len(signals.losses) if isinstance(kinds, str) else kinds
        weights = jnp.asarray([KINDS[kind] for kind in each]) * per_task.bounded_exp(-state.log_variance)
        gradient = 0.5 - weights * signals.losses
        state = UncertaintyState(*per_task.step(transformation, gradient, *state, signals.active))
        return mask_inactive(weights, signals.active), state

    return Balancer(init=init, update=update)
