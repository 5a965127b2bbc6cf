"""Random weights for the gradients of the shared parameters."""

import jax
import jax.numpy as jnp

from mmtl_jax.balancing import simplex
from mmtl_jax.balancing.arithmetic import next_key
from mmtl_jax.balancing.base import Balancer, Signals
from mmtl_jax.core.types import Array


def random(*, seed: int = 0) -> Balancer:
    r"""Returns random gradient weighting (Lin et al., "Reasonable Effectiveness of Random Weighting", 2111.10603).

    w = softmax(z) with z standard normal, drawn anew in every step. Factor 1 against TorchJD's Random, which combines
    the gradients by the same weights; like there, the task-own heads receive their own task's gradient, which is the
    whole difference from `random_loss_weighting`, where they receive the weighted one for a single backward pass.

    Degenerate cases: none, for it looks at no gradient.

    Args:
      seed: of the random numbers.
    """

    def update(signals: Signals, key: Array) -> tuple[Array, Array]:
        active = signals.active
        numbers = jax.random.normal(key, active.shape, signals.gramian.dtype)
        # The k-th number is for the k-th active task, as if the others did not exist.
        return simplex.softmax(numbers[jnp.cumsum(active) - 1], active), next_key(key)

    return Balancer(init=lambda num_tasks: jax.random.PRNGKey(seed), update=update, needs='gramian', heads='own')
