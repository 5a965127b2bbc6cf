"""From many tokens to one vector."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.masking import fill_masked, masked_softmax


def masked_mean(tokens: Array, mask: Array) -> Array:
    """Returns the mean of the real tokens, `[B, N, D]` and `[B, N]` -> `[B, D]`; zero for a row without any.

    What stands in masked positions, NaN included, reaches neither the result nor the gradient.
    """
    total = jnp.sum(fill_masked(tokens, mask), axis=-2)
    count = jnp.sum(mask, axis=-1, keepdims=True)
    return total / jnp.maximum(count, 1).astype(total.dtype)


class AttentionPooling(nn.Module):
    """Pools the real tokens into one vector: sum_n softmax_n(w . x_n) x_n.

    The scores start at zero, which makes the pooling a mean at first.
    """

    @nn.compact
    def __call__(self, tokens: Array, mask: Array) -> Array:
        """Returns `[B, D]` for `tokens` `[B, N, D]` and `mask` `[B, N]`; zero for a row without a real token."""
        tokens = fill_masked(tokens, mask)
        # No bias: a softmax does not see a constant.
        scores = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name='scores')(tokens)[..., 0]
        return jnp.einsum('bn,bnd->bd', masked_softmax(scores, mask), tokens)
