"""What fusions share that learn a space by themselves: what they reconstruct, decoders, and the error.

Such a fusion sees of each modality the vector x_m: its pooled tokens with mean 0 and variance 1 over the entries. It
reconstructs x_m as it is (no gradient goes through the target), so that an encoder cannot make that easier by making
its features small.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import pool_all
from mmtl_jax.nn import fill_masked, masked_mean

Vectors = Mapping[str, Array]


class SharedSpace(nn.Module):
    """The fields of these fusions.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how the tokens of a modality become a vector.
      dropout_rate: dropout on the result.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0

    def standardised(self, features: Mapping[str, Features]) -> tuple[Vectors, Array]:
        """Returns {modality: x_m `[B, D_m]`}, zero where absent, and presence `[B, M]`, in the order of the names."""
        vectors, present = pool_all(self, features)
        standardise = nn.LayerNorm(use_bias=False, use_scale=False, dtype=jnp.float32)
        return {
            modality: fill_masked(standardise(vector), present[:, index])
            for index, (modality, vector) in enumerate(vectors.items())
        }, present

    def decode(self, code: Array, vectors: Vectors, *, more: Vectors | None = None) -> Vectors:
        """Returns {modality: the reconstruction `[..., D_m]`} of `code` `[..., D]`, with `more` of each beside it."""
        return {
            modality: Decoder(self.width, vector.shape[-1], name=f'decode_{modality}')(
                code if more is None else jnp.concatenate([code, more[modality]], axis=-1)
            )
            for modality, vector in vectors.items()
        }


class Decoder(nn.Module):
    """W_2 gelu(W_1 z).

    Attributes:
      width: of the hidden layer.
      size: of the output.
    """

    width: int
    size: int

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Returns `[..., size]`."""
        hidden = nn.gelu(nn.Dense(self.width)(code))
        return nn.Dense(self.size)(hidden)


class JointEncoder(nn.Module):
    """W gelu(sum_m a_m W_m x_m + b): one layer on all modalities side by side, zeros for absent ones, and one more.

    Attributes:
      width: of both layers.
    """

    width: int

    @nn.compact
    def __call__(self, vectors: Vectors, present: Array) -> Array:
        """Returns `[B, width]` for {modality: `[B, D_m]`} and `[B, M]`."""
        shown = [fill_masked(vector, present[:, index]) for index, vector in enumerate(vectors.values())]
        hidden = nn.gelu(nn.Dense(self.width)(jnp.concatenate(shown, axis=-1)))
        return nn.Dense(self.width)(hidden)


def squared_errors(vectors: Vectors, outputs: Vectors) -> Array:
    """Returns the mean squared error of each reconstruction, `[..., M]`; the targets take no gradient."""
    errors = [
        jnp.mean(jnp.square(output - jnp.broadcast_to(jax.lax.stop_gradient(vectors[modality]), output.shape)), axis=-1)
        for modality, output in outputs.items()
    ]
    return jnp.stack(errors, axis=-1)


def reconstruction_error(vectors: Vectors, outputs: Vectors, present: Array) -> Array:
    """Returns `[B]`, the mean squared error over the modalities that are `present` `[B, M]`; 0 without any."""
    return masked_mean(squared_errors(vectors, outputs)[..., None], present)[:, 0]
