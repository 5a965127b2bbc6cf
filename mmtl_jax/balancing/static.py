"""Weights that are known before training: equal, fixed, scheduled."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mmtl_jax.balancing.base import Balancer, Signals, check_length, mask_inactive
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Array

Schedule = Callable[[Array], Array]


def equal() -> Balancer:
    """Returns the balancer that gives every task the weight 1: the sum of the losses.

    Factor 1 against LibMTL's EW and TorchJD's Sum. Task-own parameters get their own gradient, which times 1 is the
    weighted one.
    """

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        return mask_inactive(jnp.ones_like(signals.losses), signals.active), state

    return Balancer(init=lambda num_tasks: (), update=update)


def fixed(weights: Sequence[float]) -> Balancer:
    """Returns the balancer that gives task t the weight `weights[t]`.

    Factor 1 against TorchJD's Constant. Task-own parameters get their gradient times the weight: the losses are
    weighted, and they are part of them.

    Args:
      weights: one number per task, in the order of the tasks.

    Raises:
      ValueError: a weight is negative or not finite; from `init`, their number is not the number of tasks.
    """
    weights = tuple(float(weight) for weight in weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f'fixed weights must be finite and at least 0, got {weights}.')

    def init(num_tasks: int) -> tuple:
        check_length('fixed weights', len(weights), num_tasks)
        return ()

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        return mask_inactive(jnp.asarray(weights, signals.losses.dtype), signals.active), state

    return Balancer(init=init, update=update)


class ScheduledState(NamedTuple):
    """How many steps were taken, an int32 scalar."""

    count: Array


def scheduled(schedules: Sequence[Schedule | float | Mapping[str, Any]]) -> Balancer:
    """Returns the balancer that gives task t the weight `schedules[t](step)`.

    The step is that of the training, counted from 0, whichever tasks are active. Task-own parameters get their gradient
    times the weight: the losses are weighted, and they are part of them. Neither LibMTL nor TorchJD has it.

    Args:
      schedules: one per task: an optax schedule, a number for a constant, or the name and the arguments of an optax
        schedule, such as `{'name': 'linear_schedule', 'init_value': 0.0, 'end_value': 1.0, 'transition_steps': 500}`.

    Raises:
      ValueError: an unknown schedule; from `init`, their number is not the number of tasks.
    """
    functions = [_schedule(spec) for spec in schedules]

    def init(num_tasks: int) -> ScheduledState:
        check_length('schedules', len(functions), num_tasks)
        return ScheduledState(count=jnp.zeros((), jnp.int32))

    def update(signals: Signals, state: ScheduledState) -> tuple[Array, ScheduledState]:
        weights = jnp.stack([jnp.asarray(schedule(state.count), signals.losses.dtype) for schedule in functions])
        return mask_inactive(weights, signals.active), ScheduledState(optax.safe_increment(state.count))

    return Balancer(init=init, update=update)


def _schedule(spec: Schedule | float | Mapping[str, Any]) -> Schedule:
    if callable(spec):
        return spec
    if isinstance(spec, str | Mapping):
        return build(spec, optax)
    return optax.constant_schedule(float(spec))
