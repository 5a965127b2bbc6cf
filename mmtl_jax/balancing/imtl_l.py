"""Weights that make all losses equal."""

from typing import Any, NamedTuple

import optax

from mmtl_jax.balancing import per_task
from mmtl_jax.balancing.base import Balancer, Signals, mask_inactive
from mmtl_jax.core.build import build
from mmtl_jax.core.types import Array


class IMTLLossState(NamedTuple):
    """Attributes: log_scale `[T]`, the s of each task, and the optimizer's state, each leaf with a task axis."""

    log_scale: Array
    optimizer: Any


def imtl_l(learning_rate: float = 1e-3, *, init_log_scale: float = 0.0, optimizer: str = 'adam') -> Balancer:
    """Returns IMTL-L, the loss balance of "Towards Impartial Multi-task Learning" (Liu et al., ICLR 2021).

    Each task has a scale, learned together with the model by minimising

        sum over t of exp(s_t) L_t - s_t,

    which is least where exp(s_t) L_t = 1 for all tasks. The weight of task t is exp(s_t), and the gradient of s_t is
    exp(s_t) L_t - 1, which this balancer follows with an optimizer of its own; weights of step k come from s before
    the update of step k. s = 0 at the start is the paper's, LibMTL's and TorchJD's; there s belongs to the model's
    optimizer. The factor against both is 1 (LibMTL has it only together with IMTL-G, as IMTL).

    Task-own parameters get their gradient times the weight: they minimise the same weighted sum. Where a loss is 0 or
    negative, s grows for as long as it is, and the weight with it, up to the square root of the largest number.

    Args:
      learning_rate: of the log-scales; the default is that of `uncertainty`.
      init_log_scale: s at the start.
      optimizer: name of an optax optimizer that takes a learning rate.

    Raises:
      ValueError: an unknown optimizer.
    """
    transformation = build(optimizer, optax, learning_rate=learning_rate)

    def init(num_tasks: int) -> IMTLLossState:
        return IMTLLossState(*per_task.initial(num_tasks, init_log_scale, transformation))

    def update(signals: Signals, state: IMTLLossState) -> tuple[Array, IMTLLossState]:
        weights = per_task.bounded_exp(state.log_scale)
        gradient = weights * signals.losses - 1.0
        state = IMTLLossState(*per_task.step(transformation, gradient, *state, signals.active))
        return mask_inactive(weights, signals.active), state

    return Balancer(init=init, update=update)
