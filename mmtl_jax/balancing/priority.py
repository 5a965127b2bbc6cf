"""Weights from how far each task is from done."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Signals, check_length, mask_inactive, where_task
from mmtl_jax.core.types import Array


class PriorityState(NamedTuple):
    """Attributes: kpi `[T]`, the averaged performance of each task; seen `[T]` bool, it has been active."""

    kpi: Array
    seen: Array


def dynamic_task_priority(gamma: float | Sequence[float] = 1.0, *, decay: float = 0.9) -> Balancer:
    """Returns dynamic task prioritization (Guo et al., ECCV 2018): hard tasks first.

    The focal loss of a task's averaged key performance indicator, a number in [0, 1],

        kpi_t <- decay kpi_t + (1 - decay) p_t,    w_t = -(1 - kpi_t)^gamma_t log kpi_t.

    The paper takes p to be a metric such as accuracy. This balancer sees losses, and takes p = exp(-L): of a cross
    entropy, or of any negative log-likelihood, the (geometric mean of the) probability of the right answer. A loss of
    another kind should be brought to that scale, where 0 is perfect and 3 is bad. A loss of 0 or less counts as solved:
    p = 1. The average starts at the first p. Neither LibMTL nor TorchJD has it. The weights do not sum to a constant:
    at gamma = 0 and decay = 0 they are the losses themselves.

    Task-own parameters get their gradient times the weight: the losses are weighted, and they are part of them.

    If every task is solved, all weights are 0. The indicator is held above the smallest normal number, so no weight
    exceeds 88 in float32.

    Args:
      gamma: focus on hard tasks, at least 0, for all tasks or one per task. The paper tunes it; 1 is this library's.
      decay: of the average, in [0, 1); 1 - decay is the paper's alpha. The paper names no value; 0.9 is this library's.

    Raises:
      ValueError: a gamma is negative or the decay outside [0, 1); from `init`, the number of gammas is not the number
        of tasks.
    """
    gammas = [float(gamma)] if isinstance(gamma, int | float) else [float(value) for value in gamma]
    if not all(value >= 0 for value in gammas):
        raise ValueError(f'gamma of dynamic_task_priority must be at least 0, got {gamma}.')
    if not 0 <= decay < 1:
        raise ValueError(f'decay of dynamic_task_priority must be in [0, 1), got {decay}.')

    def init(num_tasks: int) -> PriorityState:
        if not isinstance(gamma, int | float):
            check_length('gamma', len(gammas), num_tasks)
        return PriorityState(jnp.zeros((num_tasks,), jnp.result_type(float)), jnp.zeros((num_tasks,), bool))

    def update(signals: Signals, state: PriorityState) -> tuple[Array, PriorityState]:
        now = jnp.exp(-jnp.maximum(signals.losses, 0.0)).astype(state.kpi.dtype)
        kpi = jnp.where(state.seen, decay * state.kpi + (1 - decay) * now, now)
        kpi = jnp.maximum(kpi, jnp.finfo(kpi.dtype).tiny)
        powers = jnp.broadcast_to(jnp.asarray(gammas, kpi.dtype), kpi.shape)
        weights = -((1 - kpi) ** powers) * jnp.log(kpi)
        after = PriorityState(kpi, jnp.ones_like(state.seen))
        weights = mask_inactive(weights, signals.active).astype(signals.losses.dtype)
        return weights, where_task(signals.active, after, state)

    return Balancer(init=init, update=update)
