"""From many tokens to one vector, from many cells to one."""

import functools

import flax.linen as nn
import jax
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_over(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Returns the maximum of `x` over `axis`, whose gradient the entries share that reach it.

    `jnp.max` is the same, but its gradient is NaN where no entry equals the maximum: that is so when XLA computes `x`
    anew, and rounds otherwise, for the comparison. Here the gradient is 0 there.
    """
    return jnp.max(x, axis)


@max_over.defjvp
def _max_over_jvp(axis: int | tuple[int, ...], primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    largest = max_over(x, axis)
    reach = x == jnp.expand_dims(largest, axis)
    count = jnp.maximum(jnp.sum(reach, axis), 1).astype(x.dtype)
    return largest, jnp.sum(jnp.where(reach, tangent, 0), axis) / count


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
