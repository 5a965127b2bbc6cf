"""Learning rates by path: a factor for each parameter, a number or a schedule, or one that falls layer by layer."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmtl_jax.core.tree import flatten_with_paths, path_string
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.training.freezing import check_matches
from mmtl_jax.training.layers import decay_factors
from mmtl_jax.training.schedules import from_step, schedule_of

Factor = float | optax.Schedule


def rates(
    rate_by_path: Mapping[str, float | Mapping[str, Any]] | None,
    layer_decay: Mapping[str, float] | None,
    unfreeze: Mapping[str, int] | None,
) -> list[optax.GradientTransformation]:
    """Returns the transformations that these arguments of `make_optimizer` ask for; their factors multiply.

    Raises:
      ValueError: a schedule that optax does not have, or a step that is none.
    """
    stages = []
    if rate_by_path:
        factors = {
            expression: schedule_of(factor) if isinstance(factor, Mapping) else factor
            for expression, factor in rate_by_path.items()
        }
        stages.append(scale_by_path(factors, name='rate_by_path'))
    if layer_decay:
        stages.append(scale_by_layer(layer_decay))
    if unfreeze:
        for expression, step in unfreeze.items():
            if not isinstance(step, int) or step < 0:
                raise ValueError(f'unfreeze gives {expression!r} the step {step!r}; it must be a whole number.')
        switches = {expression: from_step(step) for expression, step in unfreeze.items()}
        stages.append(scale_by_path(switches, name='unfreeze'))
    return stages


def scale_by_path(factors: Mapping[str, Factor], *, name: str) -> optax.GradientTransformation:
    """Returns a transformation that multiplies each update by the factor of the first expression that matches.

    Where the factor is 0 so is the update, whatever it was.

    Args:
      factors: expression, matched from the start of the path -> number, or schedule over the updates made.
      name: of the argument, for the sentence that says that an expression matches nothing.
    """
    scheduled = any(callable(factor) for factor in factors.values())

    def init(params: PyTree) -> optax.EmptyState | optax.ScaleByScheduleState:
        check_matches(name, list(factors), list(flatten_with_paths(params)))
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates, state, params=None):
        del params

        def scale(path: tuple, value: Array) -> Array:
            factor = next((factors[key] for key in factors if re.match(key, path_string(path))), 1.0)
            factor = factor(state.count) if callable(factor) else factor
            return jnp.where(factor == 0, jnp.zeros_like(value), (value * factor).astype(value.dtype))

        scaled = jax.tree_util.tree_map_with_path(scale, updates)
        return scaled, state._replace(count=optax.safe_increment(state.count)) if scheduled else state

    return optax.GradientTransformation(init, update)


def scale_by_layer(decays: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns a transformation that multiplies each update by `decay ** distance` of its layer from the top.

    Args:
      decays: path of an encoder, such as `encoders/caption` -> decay; see `layers.decay_factors`.
    """

    def factors_of(tree: PyTree) -> dict[str, float]:
        paths = list(flatten_with_paths(tree))
        found = [decay_factors(paths, encoder, decay) for encoder, decay in decays.items()]
        return {path: factor for factors in found for path, factor in factors.items()}

    def init(params: PyTree) -> optax.EmptyState:
        factors_of(params)
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        factors = factors_of(updates)
        return jax.tree_util.tree_map_with_path(
            lambda path, value: value * factors.get(path_string(path), 1.0), updates
        ), state

    return optax.GradientTransformation(init, update)
