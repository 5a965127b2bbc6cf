"""Weights from how fast each loss falls."""

from typing import NamedTuple

import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Signals, active_softmax, where_task
from mmtl_jax.core.types import Array


class DWAState(NamedTuple):
    """All `[T]`: steps and sum of losses of the current window, and the mean of the last and of the one before.

    A mean of 0 stands for a window that has not been.
    """

    count: Array
    total: Array
    last: Array
    before: Array


def dwa(*, temperature: float = 2.0, window: int = 25) -> Balancer:
    """Returns dynamic weight average (Liu et al., 1803.10704, equation 7).

    w = T softmax(r / temperature) with r_t the mean loss of task t over the last window, divided by that over the one
    before: who falls slowest counts most. Tasks without two full windows behind them take r = 1, so the weights are 1
    at first. Windows follow each other without overlap and hold `window` steps in which the task was active; the paper
    has epochs, which LibMTL and TorchJD leave to their user to mark: a window of one epoch's steps gives their weights
    (factor 1). The official code of Nash-MTL has a sliding window of 25 steps instead, from which the default comes.

    Task-own parameters get their gradient times the weight: the losses are weighted, and they are part of them.

    A mean loss of 0 in the window before gives r = 1. Losses that change sign give finite weights without much sense.

    Args:
      temperature: 2 in the paper; the larger, the more alike the weights.
      window: number of steps over which losses are averaged.

    Raises:
      ValueError: the temperature is not positive, or the window is shorter than one step.
    """
    if not temperature > 0:
        raise ValueError(f'the temperature of dwa must be positive, got {temperature}.')
    if window < 1:
        raise ValueError(f'the window of dwa must be at least one step, got {window}.')

    def init(num_tasks: int) -> DWAState:
        zeros = jnp.zeros((num_tasks,), jnp.result_type(float))
        return DWAState(jnp.zeros((num_tasks,), jnp.int32), zeros, zeros, zeros)

    def update(signals: Signals, state: DWAState) -> tuple[Array, DWAState]:
        known = state.before != 0
        ratio = jnp.where(known, state.last / jnp.where(known, state.before, 1.0), 1.0)
        # No ratio is beyond what the softmax can take.
        ratio = jnp.clip(ratio / temperature, -1e6, 1e6)
        weights = jnp.sum(signals.active) * active_softmax(ratio, signals.active)

        count, total = state.count + 1, state.total + signals.losses.astype(state.total.dtype)
        full = count == window
        closed = DWAState(jnp.zeros_like(count), jnp.zeros_like(total), total / window, state.last)
        after = where_task(full, closed, DWAState(count, total, state.last, state.before))
        return weights.astype(signals.losses.dtype), where_task(signals.active, after, state)

    return Balancer(init=init, update=update)
