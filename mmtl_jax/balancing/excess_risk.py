"""ExcessMTL: weights that grow with an estimate of each task's excess risk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.balancing import simplex
from mmtl_jax.balancing.arithmetic import reciprocal, zeros_per_task
from mmtl_jax.balancing.base import Balancer, Signals
from mmtl_jax.core.types import Array, PyTree


class ExcessMTLState(NamedTuple):
    """Attributes, each leaf with a task axis.

    root: like the Jacobian, the root of the sum of the squares of all gradients so far. first: `[T]`, the first excess
    risk, 0 while there was none. logits: `[T]`, the logarithms of the weights.
    """

    root: PyTree
    first: Array
    logits: Array


def excess_mtl(step_size: float = 1e-2) -> Balancer:
    r"""Returns ExcessMTL, robust to label noise (He et al., 2402.02009, algorithm 1).

    The excess risk of a task is estimated by the diagonal of Adagrad, coordinate by coordinate,

        S_t <- S_t + g_t^2,    e_t = sum of g_t^2 / sqrt(S_t),    w_t <- w_t exp(step_size e_t / e_t(0)),

    rescaled to the sum T; e_t(0) is the first one, in whose step the weights stay. They start at 1. The task-own heads
    receive the weighted gradient, as in LibMTL and the paper.

    Factor 1 against LibMTL, whose 1e-7 beside S is left out; 1 / T of it is TorchJD's, whose weights sum to 1 and which
    moves them in the first step already, by e_t itself. The default is LibMTL's.

    A task that sits out keeps S, e(0) and its weight; the active ones share among themselves what they had together,
    and are scaled to the sum of their number.

    Degenerate cases: e(0) is the first excess risk that is not 0; until then the task's weight changes only by the
    rescaling.

    Args:
      step_size: of the exponentiated gradient ascent, at least 0.

    Raises:
      ValueError: step_size is negative.
    """
    if step_size < 0:
        raise ValueError(f'excess_mtl needs a step_size of at least 0, got {step_size}.')

    def init(num_tasks: int, gradient: PyTree) -> ExcessMTLState:
        zeros = jnp.zeros(num_tasks)
        return ExcessMTLState(zeros_per_task(num_tasks, gradient), zeros, zeros)

    def update(signals: Signals, state: ExcessMTLState) -> tuple[Array, ExcessMTLState]:
        active = signals.active
        # The root instead of the sum, which would underflow for gradients below 1e-19 in float32.
        root = jax.tree.map(lambda root, leaf: jnp.hypot(root, leaf.astype(root.dtype)), state.root, signals.jacobian)
        risk = sum(jax.tree.leaves(jax.tree.map(_risk, signals.jacobian, root))).astype(state.first.dtype)
        first = jnp.where(active & (state.first == 0), risk, state.first)
        grown = state.logits + jnp.where(state.first > 0, step_size * risk * reciprocal(first), 0)
        # The active tasks keep their mass, so that it matters to none of them how often the others are active.
        logits = grown - _log_mass(grown, active) + _log_mass(state.logits, active)
        state = ExcessMTLState(root, first, jnp.where(active, logits, state.logits))
        weights = jnp.sum(active) * simplex.softmax(logits, active)
        return weights.astype(signals.gramian.dtype), state

    return Balancer(init=init, update=update, needs='jacobian', heads='weighted')


def _risk(gradients: Array, root: Array) -> Array:
    """Returns the part `[T]` of one leaf in the sum of g^2 / sqrt(S)."""
    terms = jnp.abs(gradients) * (jnp.abs(gradients) * reciprocal(root))
    return jnp.sum(terms, axis=tuple(range(1, terms.ndim)))


def _log_mass(logits: Array, active: Array) -> Array:
    """Returns the logarithm of the sum of the active tasks' weights; 0 without any."""
    return jnp.where(jnp.any(active), jax.nn.logsumexp(logits, where=active), 0)
