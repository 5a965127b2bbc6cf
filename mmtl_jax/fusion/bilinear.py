"""Fusions by products of projections: low-rank forms of y_k = h_1ᵀ W_k h_2, and of the product of more modalities.

An absent modality is a factor of 1, so that the product is that of the others. Factors of zero mean make the product of
many modalities small or large quickly; these fusions are meant for two to four.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import VectorFusion, one_token
from mmtl_jax.nn import fill_masked


class MLB(VectorFusion):
    """Multimodal low-rank bilinear pooling (Kim et al. 2017, 1610.04325, section 3): y = P prod_m tanh(U_m h_m).

    All maps have biases. The paper has two modalities; the product runs over all that the row has.

    Attributes:
      rank: size of the product, the rank of each W_k.
      dropout_rate: dropout on the product.
    """

    rank: int = 64

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features, self.rank)
        joint = product(jnp.tanh(vectors), present)
        joint = nn.Dropout(self.dropout_rate, deterministic=not train)(joint)
        return one_token(nn.Dense(self.width, dtype=self.dtype, name='joint')(joint), present)


class MFB(VectorFusion):
    """Multimodal factorized bilinear pooling (Yu et al. 2017, 1708.01471, eq. 3 and figure 2).

    z_k = the sum of `factors` neighbouring entries of prod_m U_m h_m; then y = s / |s| with s = sign(z) sqrt(|z|), the
    power and the l2 normalisation. All maps have biases. The paper has two modalities; the product runs over all that
    the row has. Where z is 0 the root has no derivative; it is taken as 0 there.

    Attributes:
      factors: entries summed for each output, the paper's k.
      dropout_rate: dropout on the product, before the sum.
    """

    factors: int = 5

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features, self.width * self.factors)
        joint = nn.Dropout(self.dropout_rate, deterministic=not train)(product(vectors, present))
        pooled = jnp.sum(joint.reshape(-1, self.width, self.factors), axis=-1)
        return one_token(unit_length(signed_root(pooled)), present)


class MUTAN(VectorFusion):
    """Multimodal Tucker fusion (Ben-younes et al. 2017, 1705.06676): y = W_o sum_r prod_m M_mr tanh(W_m h_m).

    The sum over `rank` slices is the paper's constraint on the core tensor. All maps have biases. The paper has two
    modalities; the product runs over all that the row has.

    Attributes:
      factor_width: size of tanh(W_m h_m).
      core_width: size of each slice's product.
      rank: number of slices.
      dropout_rate: dropout on the sum.
    """

    factor_width: int = 64
    core_width: int = 64
    rank: int = 5

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features, self.factor_width)
        factors = [
            nn.Dense(self.rank * self.core_width, dtype=self.dtype, name=f'core_{modality}')(
                jnp.tanh(vectors[:, index])
            )
            for index, modality in enumerate(sorted(features))
        ]
        slices = product(jnp.stack(factors, axis=1), present).reshape(-1, self.rank, self.core_width)
        joint = nn.Dropout(self.dropout_rate, deterministic=not train)(jnp.sum(slices, axis=1))
        return one_token(nn.Dense(self.width, dtype=self.dtype, name='joint')(joint), present)


def product(vectors: Array, present: Array) -> Array:
    """Returns the elementwise product `[B, D]` of `vectors` `[B, M, D]` over those `present` `[B, M]`."""
    return jnp.prod(fill_masked(vectors, present, 1), axis=1)


def signed_root(x: Array) -> Array:
    """Returns sign(x) sqrt(|x|), with the derivative 0 at 0."""
    # Selected twice: the derivative of a root at 0 is infinite, and infinite times 0 is NaN.
    size = jnp.where(x == 0, 1, jnp.abs(x))
    return jnp.where(x == 0, 0, jnp.sign(x) * jnp.sqrt(size))


def unit_length(x: Array) -> Array:
    """Returns x / |x| over the last axis, and 0 for 0."""
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(squared == 0, 1, squared))
