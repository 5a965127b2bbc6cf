"""Optimizers by optax name, with schedule, decay mask, clipping and learning rates by path."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax
import optax

from mmtl_jax.core.build import check_arguments
from mmtl_jax.core.tree import path_string
from mmtl_jax.core.types import PyTree


def make_schedule(
    learning_rate: float, *, num_steps: int, schedule: str | Mapping[str, Any] = 'cosine', warmup: float = 0.0
) -> optax.Schedule:
    """Returns step -> learning rate.

    Args:
      learning_rate: the peak.
      num_steps: the length of the run, where a decay ends.
      schedule: `'cosine'`, `'linear'`, `'constant'`, or `{'name': <optax schedule>, ...}` with optax's arguments.
      warmup: the share of the run in which the rate rises linearly from 0; not for a spec.

    Raises:
      ValueError: an unknown schedule or a share outside [0, 1).
    """
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f'warmup is a share of the run in [0, 1), got {warmup}.')
    if isinstance(schedule, Mapping):
        return _from_optax(schedule)
    rising = int(warmup * num_steps)
    falling = max(num_steps - rising, 1)
    shapes = {
        'cosine': optax.cosine_decay_schedule(learning_rate, falling),
        'linear': optax.linear_schedule(learning_rate, 0.0, falling),
        'constant': optax.constant_schedule(learning_rate),
    }
    if schedule not in shapes:
        raise ValueError(f"no schedule {schedule!r}; choose one of {sorted(shapes)}, or {{'name': <optax schedule>}}.")
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, max(rising, 1)), shapes[schedule]], [rising])


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float | None = None,
    decay_exclude: str = r'(bias|scale|embedding)$',
    clip_norm: float | None = None,
    rate_by_path: Mapping[str, float] | None = None,
    **arguments: Any,
) -> optax.GradientTransformation:
    """Returns the optimizer.

    Args:
      name: any optimizer of optax, such as `adamw`.
      schedule: step -> learning rate.
      weight_decay: passed on where given; the optimizer must take it.
      decay_exclude: parameters whose path matches this expression are not decayed.
      clip_norm: largest global norm of the gradient, or None.
      rate_by_path: expression -> factor on the learning rate of the parameters whose path it matches from its start,
        such as `{'encoders/speech': 0.5}`; the first match counts, each must match something.
      **arguments: passed on to optax.

    Raises:
      ValueError: an unknown optimizer or argument, or an expression that matches no parameter.
    """
    factory = getattr(optax, name, None)
    if not callable(factory) or 'learning_rate' not in inspect.signature(factory).parameters:
        raise ValueError(f'no optimizer {name!r} in optax; it has adamw, adam, sgd, lamb, lion and more.')
    if weight_decay is not None:
        arguments['weight_decay'] = weight_decay
        if 'mask' in inspect.signature(factory).parameters:
            arguments['mask'] = lambda params: _match(params, lambda path: not re.search(decay_exclude, path))
    check_arguments(name, factory, {'learning_rate': schedule, **arguments})
    stages = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    stages.append(factory(learning_rate=schedule, **arguments))
    if rate_by_path:
        stages.append(scale_by_path(rate_by_path))
    return optax.chain(*stages)


def scale_by_path(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns a transformation that multiplies each update by the factor of the first expression that matches."""

    def factor_of(path: str) -> float:
        return next((factor for pattern, factor in factors.items() if re.match(pattern, path)), 1.0)

    def init(params):
        paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern in factors:
            if not any(re.match(pattern, path) for path in paths):
                groups = sorted({'/'.join(path.split('/')[:2]) for path in paths})
                raise ValueError(f'rate_by_path {pattern!r} matches no parameter; there are {groups}.')
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        scaled = jax.tree_util.tree_map_with_path(lambda path, u: u * factor_of(path_string(path)), updates)
        return scaled, state

    return optax.GradientTransformation(init, update)


def _match(params: PyTree, predicate) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: predicate(path_string(path)), params)


def _from_optax(spec: Mapping[str, Any]) -> optax.Schedule:
    arguments = dict(spec)
    name = arguments.pop('name', None)
    factory = getattr(optax.schedules, str(name), None)
    if not callable(factory):
        raise ValueError(f'no schedule {name!r} in optax.schedules.')
    check_arguments(name, factory, arguments)
    return factory(**arguments)
