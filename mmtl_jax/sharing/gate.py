"""Gates: how much each row takes of each expert, seen from the features."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import masked_mean


class Gate(nn.Module):
    """w = softmax(W x) with x the mean of the real tokens; of a single candidate 1, without parameters.

    Attributes:
      num_candidates: K.
    """

    num_candidates: int

    @nn.compact
    def __call__(self, features: Features) -> Array:
        """Returns `[B, K]`, each row with sum 1; a row without a real token weighs all alike."""
        if self.num_candidates == 1:
            return jnp.ones((len(features.tokens), 1), features.tokens.dtype)
        x = masked_mean(features.tokens, features.mask)
        return jax.nn.softmax(nn.Dense(self.num_candidates, use_bias=False, name='scores')(x))
