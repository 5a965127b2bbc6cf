"""Weights that make all losses fall at one rate, from losses alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mmtl_jax.balancing import per_task
from mmtl_jax.balancing.base import Balancer, Signals, active_softmax, active_sum, check_length, positive_tasks
from mmtl_jax.core.types import Array

BATCHES = ('same', 'next')


class FAMOState(NamedTuple):
    """What FAMO keeps from step to step.

    Attributes:
      logits: `[T]`, whose softmax is the distribution over tasks.
      optimizer: Adam's state, each leaf with a task axis.
      before: `[T]`, the losses above their minimum at the task's last step, 0 where that was compared already.
    """

    logits: Array
    optimizer: Any
    before: Array


def famo(
    learning_rate: float = 0.025,
    *,
    weight_decay: float = 1e-3,
    min_losses: float | Sequence[float] = 0.0,
    batch: str = 'same',
) -> Balancer:
    """Returns fast adaptive multitask optimization, FAMO (Liu et al., 2306.03792, algorithm 1).

    With z = softmax(logits) and D_t = L_t - min_losses_t, the shared parameters descend sum of z_t log(D_t) / c with
    c = sum of z_t / D_t held constant, that is,

        w_t = (z_t / D_t) / c = softmax(logits - log D)_t.

    After the step, `Balancer.after` gets the losses of the same batch, and Adam moves the logits along the gradient
    (dz / dlogits)^T delta with delta = log D_before - log D_after: towards the tasks that fell least. Without that
    call the logits stay as they are. It takes one more forward pass. With `batch='next'` there is none: D_after is that
    of the next step, as in the official code's toy problem. Of other examples delta says what the step did for them,
    and how the batches differ; on MultiMNIST that was less accurate (docs/results/multi_mnist.md).

    The weights sum to 1, as in the paper, LibMTL and TorchJD (factor 1); those have D + 1e-8, here D has no epsilon.
    The official code clips the gradient to norm 1: `clip_norm(famo())`.

    Task-own parameters get their gradient times the weight, as in the official code: FAMO weights losses.

    A task with D = 0 sits out, and so does, under `jax.jit`, one with D < 0, of which there is no logarithm; outside
    `jax.jit` a negative D raises. Every task has its own Adam state, so a task that sits out a step is as if the step
    had not been.

    Args:
      learning_rate: of the logits; 0.025 in the paper's experiments, LibMTL and TorchJD.
      weight_decay: added to the gradient as weight_decay times logits; 1e-3 in LibMTL, TorchJD and most scripts of the
        official code (0.01 on Cityscapes, 0 on the toy problem).
      min_losses: lower bounds of the losses, for all tasks or one per task.
      batch: of which batch the losses after a step are, 'same' or 'next': for each task, the next that labels it.

    Raises:
      ValueError: the learning rate or the decay is negative, or the batch another; from `init`, the number of bounds is
        not the number of tasks; from `update` and `after` outside `jax.jit`, a loss is below its bound.
    """
    if not (learning_rate >= 0 and weight_decay >= 0):
        raise ValueError(f'famo needs rates of at least 0, got {learning_rate=} and {weight_decay=}.')
    if batch not in BATCHES:
        raise ValueError(f'famo compares the losses of one of the batches {list(BATCHES)}, got {batch!r}.')
    bounds = [float(min_losses)] if isinstance(min_losses, int | float) else [float(bound) for bound in min_losses]
    adam = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))

    def above(losses: Array) -> Array:
        return losses - jnp.broadcast_to(jnp.asarray(bounds, losses.dtype), losses.shape)

    def init(num_tasks: int) -> FAMOState:
        if not isinstance(min_losses, int | float):
            check_length('min_losses', len(bounds), num_tasks)
        logits, optimizer = per_task.initial(num_tasks, 0.0, adam)
        return FAMOState(logits, optimizer, jnp.zeros_like(logits))

    def update(signals: Signals, state: FAMOState) -> tuple[Array, FAMOState]:
        if batch == 'next':
            state = after(signals.losses, signals.active, state)
        distance = above(signals.losses)
        able = positive_tasks('famo', distance, signals.active)
        log_distance = jnp.log(jnp.where(able, distance, 1.0))
        weights = active_softmax(state.logits - log_distance, able).astype(signals.losses.dtype)
        # An able task's number replaces the last one, that of one that is active but not able is forgotten.
        now = jnp.where(able, distance, 0.0).astype(state.before.dtype)
        return weights, state._replace(before=jnp.where(signals.active, now, state.before))

    def after(losses: Array, active: Array, state: FAMOState) -> FAMOState:
        distance = above(losses)
        able = positive_tasks('famo', distance, active & (state.before > 0))
        delta = jnp.log(jnp.where(able, state.before, 1.0)) - jnp.log(jnp.where(able, distance, 1.0))
        share = active_softmax(state.logits, able)
        gradient = share * (delta - active_sum(share * delta, able))
        logits, optimizer = per_task.step(adam, gradient, state.logits, state.optimizer, able)
        return FAMOState(logits, optimizer, jnp.where(active, 0.0, state.before))

    return Balancer(init=init, update=update, after=after if batch == 'same' else None)
