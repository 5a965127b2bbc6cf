"""Weights from how well and how far each task generalises."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Signals, active_softmax, check_length, mask_inactive, where_task
from mmtl_jax.core.types import Array


class GradientBlendState(NamedTuple):
    """All `[T]`.

    Attributes:
      count: steps since the last evaluation.
      total: sum of their losses.
      train: mean loss before the last evaluation.
      validation: loss at the last evaluation.
      known: bool, there has been one.
      weights: in use.
    """

    count: Array
    total: Array
    train: Array
    validation: Array
    known: Array
    weights: Array


def gradient_blend(*, groups: Sequence[Hashable] | None = None, least_ratio: float = 0.1) -> Balancer:
    """Returns gradient blending (Wang et al. 2020, 1905.12681), for heads of single modalities beside a fused one.

    At each evaluation on the validation split, the weights of the next interval become, in each group of tasks,

        w_k = n (G_k / O_k^2) / sum_j (G_j / O_j^2),

    with n the number of tasks of the group, G_k by how much the validation loss fell since the evaluation before, and
    O_k by how much its distance from the training loss grew (the paper's overfitting-to-generalisation ratio is
    |O_k / G_k|). The weights are 1 until there are two evaluations, and a group in which no validation loss fell keeps
    its own.

    Where it departs from the paper: that trains each head alone from the same checkpoint to measure G and O, and has
    the weights sum to 1; here the run itself is measured, in which all train at once, and the training loss is the mean
    over the interval. The paper does not say what becomes of a loss that did not fall: here it gets 0. Task-own
    parameters get their own gradient, unweighted, so that such a task still learns and can come back.

    Args:
      groups: for each task its group, such as the label that a fused and some single-modality heads have in common;
        None puts all in one.
      least_ratio: |O_k / G_k| counts as this much at least, for a ratio of 0 would take all the weight.

    Raises:
      ValueError: the least ratio is not positive; from `init`, not one group for each task.
    """
    if not least_ratio > 0:
        raise ValueError(f'least_ratio of gradient_blend must be positive, got {least_ratio}.')

    def init(num_tasks: int) -> GradientBlendState:
        check_length('groups of gradient_blend', num_tasks if groups is None else len(groups), num_tasks)
        zeros = jnp.zeros((num_tasks,), jnp.result_type(float))
        nothing, known = jnp.zeros((num_tasks,), jnp.int32), jnp.zeros((num_tasks,), bool)
        return GradientBlendState(nothing, zeros, zeros, zeros, known, jnp.ones_like(zeros))

    def update(signals: Signals, state: GradientBlendState) -> tuple[Array, GradientBlendState]:
        total = state.total + mask_inactive(signals.losses, signals.active).astype(state.total.dtype)
        counted = state._replace(count=state.count + signals.active, total=total)
        return mask_inactive(state.weights, signals.active).astype(signals.losses.dtype), counted

    def validated(losses: Array, known: Array, state: GradientBlendState) -> GradientBlendState:
        measured = known & (state.count > 0)
        losses = jnp.where(measured, losses, 0.0).astype(state.validation.dtype)
        train = state.total / jnp.maximum(state.count, 1)
        train, validation = jnp.stack([state.train, train]), jnp.stack([state.validation, losses])
        blended = blend_weights(train, validation, groups, least_ratio, measured & state.known)
        weights = jnp.where(jnp.isnan(blended), state.weights, blended).astype(state.weights.dtype)
        zeros = jnp.zeros_like(state.total)
        after = GradientBlendState(
            jnp.zeros_like(state.count), zeros, train[1], validation[1], state.known | measured, weights
        )
        return where_task(measured, after, state)

    return Balancer(init=init, update=update, heads='own', validated=validated)


def blend_weights(
    train: Array,
    validation: Array,
    groups: Sequence[Hashable] | None = None,
    least_ratio: float = 0.1,
    measured: Array | None = None,
) -> Array:
    """Returns the weights `[T]` of `gradient_blend` from the losses at two checkpoints of a run, for `fixed`.

    Args:
      train: `[2, T]`, training losses at the earlier and at the later checkpoint.
      validation: `[2, T]`, validation losses.
      groups: see `gradient_blend`.
      least_ratio: see there.
      measured: `[T]` bool, which tasks have losses; None for all.

    Returns:
      Weights that sum to the number of tasks in each group; NaN for tasks without losses, and in a group in which no
      validation loss fell.
    """
    train, validation = jnp.asarray(train), jnp.asarray(validation)
    measured = jnp.ones(train.shape[1], bool) if measured is None else measured
    names = [0] * train.shape[1] if groups is None else list(groups)
    fell = validation[0] - validation[1]
    grew = (validation[1] - train[1]) - (validation[0] - train[0])
    counts = measured & (fell > 0)
    fell = jnp.where(counts, fell, 1.0)
    # In logarithms, no unit of a loss is too large or too small to be squared.
    logits = jnp.log(fell) - 2 * jnp.log(jnp.maximum(jnp.abs(grew), least_ratio * fell))
    weights = jnp.full(train.shape[1], jnp.nan, logits.dtype)
    for name in set(names):
        member = measured & jnp.array([other == name for other in names])
        shares = jnp.sum(member) * active_softmax(logits, member & counts)
        weights = jnp.where(member & jnp.any(member & counts), shares, weights)
    return weights
