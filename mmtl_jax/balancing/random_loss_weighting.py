"""Weights drawn anew at every step."""

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Signals, active_softmax
from mmtl_jax.core.types import Array


def random_loss_weighting(*, seed: int = 0) -> Balancer:
    """Returns random loss weighting, RLW (Lin et al., 2111.10603), the litmus test that other methods have to pass.

    w = softmax(z) with z drawn from the standard normal distribution at every step; the softmax is over the active
    tasks, so the weights always sum to 1, as in the paper, LibMTL and TorchJD's scalarizer (factor 1). The mean of each
    weight is 1 / T, against 1 for `equal`. The k-th active task gets the k-th number, so those that sit out draw none.

    Task-own parameters get their gradient times the weight: the losses are weighted, and they are part of them.

    Args:
      seed: of the draws; the key is in the state.
    """

    def init(num_tasks: int) -> Array:
        return jax.random.PRNGKey(seed)

    def update(signals: Signals, key: Array) -> tuple[Array, Array]:
        key, draw = jax.random.split(key)
        numbers = jax.random.normal(draw, signals.losses.shape, signals.losses.dtype)
        return active_softmax(numbers[jnp.cumsum(signals.active) - 1], signals.active), key

    return Balancer(init=init, update=update)
