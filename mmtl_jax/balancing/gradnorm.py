"""GradNorm: learned weights that bring the gradients' lengths to the tasks' rates of training."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mmtl_jax.balancing import per_task, simplex
from mmtl_jax.balancing.arithmetic import reciprocal
from mmtl_jax.balancing.base import Balancer, Signals, active_mean, mask_inactive
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Array


class GradNormState(NamedTuple):
    """Attributes, each leaf with a task axis.

    logits: `[T]`, before the softmax. first_losses: `[T]`, each task's loss when it was first active. seen: `[T]` bool,
    whether it was. optimizer: the state of each task's optimizer.
    """

    logits: Array
    first_losses: Array
    seen: Array
    optimizer: Any


def gradnorm(
    alpha: float = 1.5, *, learning_rate: float = 0.025, optimizer: str = 'adam', relative: bool = True
) -> Balancer:
    r"""Returns GradNorm (Chen et al., 1711.02257, equations 1 and 2).

    With n active tasks, N_t = |g_t| and w = n softmax(s), the logits s follow, with an optimizer of their own, the
    gradient of

        sum over t of abs(w_t N_t - m r_t^alpha),    m = mean of w_t N_t,    r_t = (l_t / l_t(0)) / mean of l / l(0),

    in which m and r count as constants. The weights of a step come from s before its update. A task's first active step
    only records l_t(0), its loss there, so that the first step of all has equal weights.

    The softmax is LibMTL's, and keeps w positive with the sum n; the paper learns w itself and rescales it. As in
    LibMTL, the lengths are of the gradients of all shared parameters (`per_group` or the feature level choose others);
    LibMTL takes the mean loss of the first epoch for l(0), and moves s by the model's optimizer, with its learning rate
    and weight decay. TorchJD lacks the method. Factor 1 against LibMTL at the same logits. The task-own heads receive
    the weighted gradient, as in the paper, where w weights the loss (LibMTL: their own task's).

    Defaults: alpha is the paper's for its real data, the learning rate its own as well.

    Degenerate cases: a zero gradient has the length 0, like any other; r is 1 for a task whose first loss was not
    positive and 0 for one whose loss is not positive now; where all r are 0, or all gradients, s stays.

    Args:
      alpha: strength of the pull towards equal rates of training; 0 makes all lengths equal.
      learning_rate: of the logits.
      optimizer: name of an optax optimizer that takes a learning rate.
      relative: measure the objective in units of the mean of N_t, so that the weights do not depend on the scale of the
        gradients; False: as published.

    Raises:
      ValueError: alpha is negative; an unknown optimizer.
    """
    if alpha < 0:
        raise ValueError(f'gradnorm needs an alpha of at least 0, got {alpha}.')
    transformation = build(optimizer, optax, learning_rate=learning_rate)

    def init(num_tasks: int) -> GradNormState:
        logits, optimizer_state = per_task.initial(num_tasks, 0.0, transformation)
        return GradNormState(logits, jnp.zeros(num_tasks), jnp.zeros(num_tasks, bool), optimizer_state)

    def update(signals: Signals, state: GradNormState) -> tuple[Array, GradNormState]:
        active, count = signals.active, jnp.sum(signals.active)
        length = jnp.sqrt(jnp.maximum(jnp.diagonal(signals.gramian), 0))
        shares = simplex.softmax(state.logits, active).astype(length.dtype)
        weights = count * shares

        known = active & state.seen
        target = active_mean(weights * length, known) * _relative_rates(signals.losses, state, known) ** alpha
        slope = mask_inactive(jnp.sign(weights * length - target) * length, known)
        # Of the softmax: dw_t / ds_u = w_t (1[t = u] - shares_u).
        gradient = weights * (slope - jnp.sum(shares * slope))
        if relative:
            gradient = gradient * reciprocal(active_mean(length, known))
        logits, optimizer_state = per_task.step(transformation, gradient, state.logits, state.optimizer, known)
        first = active & ~state.seen
        first_losses = jnp.where(first, signals.losses.astype(state.first_losses.dtype), state.first_losses)
        return weights, GradNormState(logits, first_losses, state.seen | first, optimizer_state)

    return Balancer(init=init, update=update, needs='gramian', heads='weighted')


def _relative_rates(losses: Array, state: GradNormState, known: Array) -> Array:
    """Returns r `[T]`: each loss over its first one, over the mean of these."""
    positive = known & (state.first_losses > 0)
    ratios = jnp.where(positive, jnp.maximum(losses, 0) * reciprocal(jnp.where(positive, state.first_losses, 1)), 1)
    return ratios * reciprocal(active_mean(ratios, known))
