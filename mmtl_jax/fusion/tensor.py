"""Fusions by the tensor product of all modalities, in full and in low rank.

Each vector has a 1 in front, so that the products of any subset of the modalities are entries of the tensor. An absent
modality is [1; 0]: what remains is the tensor of the others.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import VectorFusion, one_token


class TensorFusion(VectorFusion):
    """y = W vec([1; g_1] ⊗ ... ⊗ [1; g_M]) + b, g_m = W_m h_m (TFN; Zadeh et al. 2017, 1707.07250, section 4.2).

    The paper's embedding networks are the encoders and W_m, its inference network begins with W. W has
    (factor_width + 1)^M rows: this is for few modalities and small factors.

    Attributes:
      factor_width: size of g_m.
      dropout_rate: dropout on the tensor.
    """

    factor_width: int = 16

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features, self.factor_width)
        tensor = jnp.ones((len(vectors), 1), vectors.dtype)
        for index in range(len(features)):
            tensor = jnp.einsum('bi,bj->bij', tensor, with_one(vectors[:, index])).reshape(len(vectors), -1)
        tensor = nn.Dropout(self.dropout_rate, deterministic=not train)(tensor)
        return one_token(nn.Dense(self.width, dtype=self.dtype, name='joint')(tensor), present)


class LowRank(VectorFusion):
    """y = b + sum_r w_r prod_m F_mr [1; h_m] (LMF; Liu et al. 2018, 1806.00064, section 3).

    This is tensor fusion of the h_m with W of rank R, W = sum_r w_r (F_1r ⊗ ... ⊗ F_Mr) for each output, in time
    and parameters linear in M. The weights w_r are those of the authors' code.

    Attributes:
      rank: the number R of terms.
    """

    rank: int = 32

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.pool(features)
        terms = 1.0
        for modality, vector in vectors.items():
            extended = with_one(vector)
            shape = (self.rank, extended.shape[-1], self.width)
            factor = self.param(f'factor_{modality}', nn.initializers.lecun_normal(batch_axis=0), shape)
            extended, factor = nn.dtypes.promote_dtype(extended, factor, dtype=self.dtype)
            terms = terms * jnp.einsum('bi,rid->brd', extended, factor)
        weights = self.param('rank_weights', nn.initializers.normal(self.rank**-0.5), (self.rank,))
        bias = self.param('bias', nn.initializers.zeros, (self.width,))
        terms, weights, bias = nn.dtypes.promote_dtype(terms, weights, bias, dtype=self.dtype)
        return self.one_token(jnp.einsum('brd,r->bd', terms, weights) + bias[None], present, train=train)


def with_one(vector: Array) -> Array:
    """Returns `[1; vector]`, `[B, D + 1]`."""
    return jnp.concatenate([jnp.ones_like(vector[:, :1]), vector], axis=-1)
