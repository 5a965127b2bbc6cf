"""Schedules by their names in optax, and factors that rest until a step."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from mmtl_jax.core.build import check_arguments


def schedule_of(spec: Mapping[str, Any]) -> optax.Schedule:
    """Returns the schedule of optax that `spec` describes, by `name` and arguments.

    A mapping by steps, such as `boundaries_and_scales`, may have them as text, as JSON does.

    Raises:
      ValueError: an unknown name or argument.
    """
    arguments = dict(spec)
    name = arguments.pop('name', None)
    factory = getattr(optax.schedules, str(name), None)
    if not callable(factory):
        raise ValueError(f'no schedule {name!r} in optax.schedules.')
    check_arguments(name, factory, arguments)
    return factory(**{key: _by_steps(key, value) for key, value in arguments.items()})


def from_step(first: int) -> optax.Schedule:
    """Returns the schedule that is 0 before the step `first`, and 1 from then on."""
    return lambda step: jnp.where(step < first, 0.0, 1.0)


def _by_steps(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    try:
        return {int(step): number for step, number in value.items()}
    except ValueError as error:
        raise ValueError(f'{name!r} of a schedule is by steps, got {list(value)}; make them whole numbers.') from error
