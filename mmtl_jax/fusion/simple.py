"""Fusions of one vector per modality: concatenation, mean, sum, weighted sum.

Each pools the tokens of a modality into a vector h_m and knows a_m, whether the row has the modality (one real token at
least). The result is one token; a row without any modality gets zero, no gradient and a False mask.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import AttentionPooling, fill_masked, masked_mean, masked_softmax

POOLINGS = ('attention', 'mean')


class Concat(nn.Module):
    """y = LayerNorm(W gelu([W_1 h_1; ...; W_M h_M])), with a learned vector in place of an absent W_m h_m.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how tokens become a vector.
      dropout_rate: dropout on the concatenated vector.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = project_all(self, features)
        filled = []
        for index, modality in enumerate(sorted(features)):
            absent = self.param(f'absent_{modality}', nn.initializers.normal(1.0), (self.width,))
            filled.append(jnp.where(present[:, index, None], vectors[:, index], absent[None]))
        joint = nn.gelu(jnp.concatenate(filled, axis=-1))
        joint = nn.Dropout(self.dropout_rate, deterministic=not train)(joint)
        return one_token(nn.LayerNorm()(nn.Dense(self.width, name='joint')(joint)), present)


class Mean(nn.Module):
    """y = sum_m a_m W_m h_m / sum_m a_m: the mean over the modalities that the row has.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how tokens become a vector.
      dropout_rate: dropout on the result.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = project_all(self, features)
        fused = nn.Dropout(self.dropout_rate, deterministic=not train)(masked_mean(vectors, present))
        return one_token(fused, present)


class Sum(nn.Module):
    """y = sum_m a_m W_m h_m: the sum over the modalities that the row has.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how tokens become a vector.
      dropout_rate: dropout on the result.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = project_all(self, features)
        fused = nn.Dropout(self.dropout_rate, deterministic=not train)(jnp.sum(vectors, axis=1))
        return one_token(fused, present)


class Weighted(nn.Module):
    """y = sum_m w_m W_m h_m with w = softmax(A [W_1 h_1; ...; W_M h_M]) over the modalities that the row has.

    An absent modality has h_m = 0 and the logit minus infinity. A starts at zero: equal weights.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how tokens become a vector.
      dropout_rate: dropout on the result.
    """

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = project_all(self, features)
        scores = nn.Dense(len(features), kernel_init=nn.initializers.zeros, name='scores')
        weights = masked_softmax(scores(vectors.reshape(vectors.shape[0], -1)), present)
        fused = jnp.einsum('bm,bmd->bd', weights, vectors)
        return one_token(nn.Dropout(self.dropout_rate, deterministic=not train)(fused), present)


def pool_all(fusion: nn.Module, features: Mapping[str, Features]) -> tuple[dict[str, Array], Array]:
    """Returns {modality: h_m `[B, D_m]`}, zero where absent, and presence `[B, M]`, in the order of the sorted names.

    Called inside the compact method of `fusion`, which has the field `pooling`.

    Raises:
      ValueError: no modality, or an unknown pooling.
    """
    if not features:
        raise ValueError('a fusion needs at least one modality, got none.')
    if fusion.pooling not in POOLINGS:
        raise ValueError(f'{type(fusion).__name__}: pooling must be one of {POOLINGS}, got {fusion.pooling!r}.')
    vectors, presence = {}, []
    for modality in sorted(features):
        tokens, mask = features[modality].tokens, features[modality].mask
        pool = masked_mean if fusion.pooling == 'mean' else AttentionPooling(name=f'pool_{modality}')
        vectors[modality] = pool(tokens, mask)
        presence.append(jnp.any(mask, axis=1))
    return vectors, jnp.stack(presence, axis=1)


def project_all(fusion: nn.Module, features: Mapping[str, Features]) -> tuple[Array, Array]:
    """Returns W_m h_m `[B, M, width]`, zero where absent, and presence `[B, M]`, in the order of the sorted names.

    Called inside the compact method of `fusion`, which has the fields `width` and `pooling`.

    Raises:
      ValueError: no modality, or an unknown pooling.
    """
    vectors, present = pool_all(fusion, features)
    projected = [nn.Dense(fusion.width, name=f'project_{modality}')(h) for modality, h in vectors.items()]
    return fill_masked(jnp.stack(projected, axis=1), present), present


def one_token(fused: Array, present: Array) -> Features:
    """Returns `fused` `[B, D]` as one token, zero and masked in rows where nothing is `present` `[B, M]`."""
    mask = jnp.any(present, axis=1, keepdims=True)
    return Features(tokens=fill_masked(fused[:, None], mask), mask=mask)
