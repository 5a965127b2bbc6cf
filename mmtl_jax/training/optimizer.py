"""Optimizers by optax name, with schedule, decay mask, clipping, learning rates by path, and what is frozen."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from mmtl_jax.core.build import check_arguments
from mmtl_jax.core.tree import path_string
from mmtl_jax.core.types import PyTree
from mmtl_jax.training.freezing import freezing
from mmtl_jax.training.rates import rates
from mmtl_jax.training.schedules import schedule_of


class Optimizer(NamedTuple):
    """An `optax.GradientTransformation` that says what it freezes, so that no gradient need be computed for it.

    Attributes:
      init: parameters -> state; all of them, or the trained part alone.
      update: (gradients, state, parameters) -> (updates, state); of both, all, or the trained part alone.
      freeze: expressions of the paths of the parameters that it leaves as they are.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    freeze: tuple[str, ...] = ()


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
        return schedule_of(schedule)
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
    rate_by_path: Mapping[str, float | Mapping[str, Any]] | None = None,
    layer_decay: Mapping[str, float] | None = None,
    unfreeze: Mapping[str, int] | None = None,
    freeze: Sequence[str] = (),
    **arguments: Any,
) -> Optimizer:
    """Returns the optimizer; expressions are regular ones, matched from the start of a parameter's path.

    Args:
      name: any optimizer of optax, such as `adamw`.
      schedule: step -> learning rate.
      weight_decay: passed on where given; the optimizer must take it.
      decay_exclude: parameters whose path matches this expression are not decayed.
      clip_norm: largest global norm of the gradient, or None.
      rate_by_path: expression -> factor on the learning rate, such as `{'encoders/speech': 0.5}`, or a schedule of it,
        `{'name': <optax schedule>, ...}`; the first match counts, each must match something.
      layer_decay: path of an encoder -> factor on the learning rate from each of its layers to the one before; see
        `layers.decay_factors`.
      unfreeze: expression -> the step from which on the parameters are trained; until then they stay to the bit, though
        their gradients are computed and their moments grow. The first match counts, each must match something.
      freeze: expressions of the parameters that stay to the bit: no gradient, no state. Each must match something.
      **arguments: passed on to optax.

    Raises:
      ValueError: an unknown optimizer or argument; from `init`, an expression that matches no parameter.
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
    stages += rates(rate_by_path, layer_decay, unfreeze)
    if isinstance(freeze, str):
        raise ValueError(f'freeze is a sequence of expressions, got the text {freeze!r}; put it in brackets.')
    chain = optax.chain(*stages)
    return Optimizer(*(freezing(chain, freeze) if freeze else chain), tuple(freeze))


def _match(params: PyTree, predicate) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: predicate(path_string(path)), params)
