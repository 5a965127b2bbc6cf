"""What fusions share that learn a space by themselves: what they reconstruct, decoders, and the error.

Such a fusion sees of each modality the vector x_m: its pooled tokens with mean 0 and variance 1 over the entries. It
reconstructs x_m as it is (no gradient goes through the target), so that an encoder cannot make that easier by making
its features small.
"""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.vectors import check_number, one_token, pool_all
from mmtl_jax.nn import CheckedModule, fill_masked, masked_mean

Vectors = Mapping[str, Array]


class SharedSpace(CheckedModule):
    """The fields of these fusions.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how the tokens of a modality become a vector.
      dropout_rate: dropout on the result.
      dtype: of the dense layers and the result, by default float32; x_m, linear algebra and objectives always are that.
    """

    least: ClassVar[int] = 1

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    def standardised(self, features: Mapping[str, Features]) -> tuple[Vectors, Array]:
        """Returns {modality: x_m `[B, D_m]`}, zero where absent, and presence `[B, M]`, in the order of the names.

        Raises:
          ValueError: fewer than `least` modalities, or an unknown pooling.
        """
        check_number(self, features)
        vectors, present = pool_all(self, features)
        standardise = nn.LayerNorm(use_bias=False, use_scale=False, dtype=jnp.float32)
        return {
            modality: fill_masked(standardise(vector), present[:, index])
            for index, (modality, vector) in enumerate(vectors.items())
        }, present

    def decode(self, code: Array, vectors: Vectors, *, more: Vectors | None = None) -> Vectors:
        """Returns {modality: the reconstruction `[..., D_m]`} of `code` `[..., D]`, with `more` of each beside it."""
        return {
            modality: Decoder(self.width, vector.shape[-1], self.dtype, name=f'decode_{modality}')(
                code if more is None else jnp.concatenate([code, more[modality]], axis=-1)
            )
            for modality, vector in vectors.items()
        }

    def fused(self, code: Array, present: Array, objectives: Mapping[str, Array], *, train: bool) -> Fused:
        """Returns `code` `[B, width]` with dropout as one token, with the objectives."""
        code = nn.Dropout(self.dropout_rate, deterministic=not train)(code.astype(self.dtype or code.dtype))
        token = one_token(code, present)
        return Fused(token.tokens, token.mask, objectives=dict(objectives))


class Decoder(nn.Module):
    """W_2 gelu(W_1 z).

    Attributes:
      width: of the hidden layer.
      size: of the output.
      dtype: of both layers.
    """

    width: int
    size: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, code: Array) -> Array:
        """Returns `[..., size]`."""
        hidden = nn.gelu(nn.Dense(self.width, dtype=self.dtype)(code))
        return nn.Dense(self.size, dtype=self.dtype)(hidden)


class JointEncoder(nn.Module):
    """W gelu(sum_m a_m W_m x_m + b): one layer on all modalities side by side, zeros for absent ones, and one more.

    Attributes:
      width: of both layers.
      dtype: of both layers.
    """

    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, vectors: Vectors, present: Array) -> Array:
        """Returns `[B, width]` for {modality: `[B, D_m]`} and `[B, M]`."""
        shown = [fill_masked(vector, present[:, index]) for index, vector in enumerate(vectors.values())]
        hidden = nn.gelu(nn.Dense(self.width, dtype=self.dtype)(jnp.concatenate(shown, axis=-1)))
        return nn.Dense(self.width, dtype=self.dtype)(hidden)


def squared_errors(vectors: Vectors, outputs: Vectors) -> Array:
    """Returns the mean squared error of each reconstruction, `[..., M]`; the targets take no gradient."""
    errors = []
    for modality, output in outputs.items():
        target = jnp.broadcast_to(jax.lax.stop_gradient(vectors[modality]), output.shape)
        errors.append(jnp.mean(jnp.square(output.astype(jnp.float32) - target), axis=-1))
    return jnp.stack(errors, axis=-1)


def reconstruction_error(vectors: Vectors, outputs: Vectors, present: Array) -> Array:
    """Returns `[B]`, the mean squared error over the modalities that are `present` `[B, M]`; 0 without any."""
    return masked_mean(squared_errors(vectors, outputs)[..., None], present)[:, 0]
