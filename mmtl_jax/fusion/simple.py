"""Fusions of one vector per modality: concatenation, mean, sum, weighted sum.

Each pools the tokens of a modality into a vector h_m and knows a_m, whether the row has the modality (one real token at
least). The result is one token; a row without any modality gets zero, no gradient and a False mask. One modality alone
is enough for these. With `absent='token'` a learned vector is W_m h_m where the row lacks the modality, and a_m is 1.
"""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.vectors import VectorFusion, one_token, sow_weights
from mmtl_jax.nn import masked_mean, masked_softmax


class Concat(VectorFusion):
    """y = LayerNorm(W gelu([W_1 h_1; ...; W_M h_M])), with a learned vector in place of an absent W_m h_m.

    Attributes:
      dropout_rate: dropout on the concatenated vector.
      absent: 'token', or 'neutral' for zero.
    """

    least: ClassVar[int] = 1

    absent: str = 'token'

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features)
        joint = nn.gelu(vectors.reshape(vectors.shape[0], -1))
        joint = nn.Dropout(self.dropout_rate, deterministic=not train)(joint)
        fused = nn.Dense(self.width, dtype=self.dtype, name='joint')(joint)
        return one_token(nn.LayerNorm(dtype=self.dtype)(fused), present)


class Mean(VectorFusion):
    """y = sum_m a_m W_m h_m / sum_m a_m: the mean over the modalities that the row has."""

    least: ClassVar[int] = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features)
        return self.one_token(masked_mean(vectors, present), present, train=train)


class Sum(VectorFusion):
    """y = sum_m a_m W_m h_m: the sum over the modalities that the row has."""

    least: ClassVar[int] = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features)
        return self.one_token(jnp.sum(vectors, axis=1), present, train=train)


class Weighted(VectorFusion):
    """y = sum_m w_m W_m h_m with w = softmax(A [W_1 h_1; ...; W_M h_M]) over the modalities that the row has.

    An absent modality has h_m = 0 and the logit minus infinity. A starts at zero: equal weights.
    """

    least: ClassVar[int] = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features)
        scores = nn.Dense(len(features), kernel_init=nn.initializers.zeros, dtype=self.dtype, name='scores')
        weights = masked_softmax(scores(vectors.reshape(vectors.shape[0], -1)), present)
        sow_weights(self, features, weights)
        return self.one_token(jnp.einsum('bm,bmd->bd', weights, vectors), present, train=train)
