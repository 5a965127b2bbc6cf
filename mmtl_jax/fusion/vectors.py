"""What fusions of one vector per modality share: pooling, projection, learned stand-ins, the result."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import AttentionPooling, CheckedModule, fill_masked, masked_mean

POOLINGS = ('attention', 'mean')
ABSENT = ('neutral', 'token')


class VectorFusion(CheckedModule):
    """The fields of the fusions that make one vector of one vector h_m per modality.

    `modality_weights` `{modality: [B]}` stands among the `intermediates` of those that weight the modalities.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean', how the tokens of a modality become h_m.
      dropout_rate: dropout on the result, or where the class says.
      absent: what a modality that the row lacks is: 'neutral', left out so that the formula is that of the others, or
        'token', a learned vector in its place.
      dtype: of the arithmetic behind the pooling; None takes the widest of inputs and parameters.
    """

    # How many modalities it takes to make sense.
    least: ClassVar[int] = 2

    width: int
    pooling: str = 'attention'
    dropout_rate: float = 0.0
    absent: str = 'neutral'
    dtype: jnp.dtype | None = None

    def pool(self, features: Mapping[str, Features]) -> tuple[dict[str, Array], Array]:
        """Returns {modality: h_m `[B, D_m]`} in the order of the names, and which take part in each row, `[B, M]`.

        Where a modality does not take part, h_m is zero.
        """
        check_fields(self, features)
        vectors, present = pool_all(self, features)
        if self.absent == 'token':
            vectors = {
                modality: stand_in(self, modality, vector, present[:, index])
                for index, (modality, vector) in enumerate(vectors.items())
            }
            present = someone(present)
        return vectors, present

    def project(self, features: Mapping[str, Features], width: int | None = None) -> tuple[Array, Array]:
        """Returns W_m h_m `[B, M, width]`, and which modalities take part in each row, `[B, M]`, sorted by name.

        Where a modality does not take part, W_m h_m is zero; a learned vector stands in place of W_m h_m, not of h_m.
        """
        check_fields(self, features)
        vectors, present = project_all(self, features, width=width, dtype=self.dtype)
        if self.absent == 'token':
            filled = [
                stand_in(self, modality, vectors[:, index], present[:, index])
                for index, modality in enumerate(sorted(features))
            ]
            vectors, present = jnp.stack(filled, axis=1), someone(present)
        return vectors, present

    def one_token(self, fused: Array, present: Array, *, train: bool) -> Features:
        """Returns `fused` `[B, D]` with dropout as one token."""
        return one_token(nn.Dropout(self.dropout_rate, deterministic=not train)(fused), present)


def check_fields(fusion: nn.Module, features: Mapping[str, Features]):
    """Raises a `ValueError` for too few modalities and for an unknown `absent`."""
    check_number(fusion, features)
    if fusion.absent not in ABSENT:
        raise ValueError(f'{type(fusion).__name__}: absent must be one of {ABSENT}, got {fusion.absent!r}.')


def check_number(fusion: nn.Module, features: Mapping[str, Features]):
    """Raises a `ValueError` for fewer modalities than `fusion.least`."""
    if not features:
        raise ValueError('a fusion needs at least one modality, got none.')
    if len(features) < fusion.least:
        raise ValueError(
            f'{type(fusion).__name__} joins two or more modalities, got only {min(features)!r}; for one, take Concat, '
            'Mean, Sum or Weighted.'
        )


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


def project_all(
    fusion: nn.Module,
    features: Mapping[str, Features],
    *,
    width: int | None = None,
    dtype: jnp.dtype | None = None,
) -> tuple[Array, Array]:
    """Returns W_m h_m `[B, M, width]`, zero where absent, and presence `[B, M]`, in the order of the sorted names.

    Called inside the compact method of `fusion`, which has the fields `width` and `pooling`.

    Args:
      fusion: the module that owns the parameters.
      features: modality -> Features.
      width: size of W_m h_m; None is `fusion.width`.
      dtype: of the projection.

    Raises:
      ValueError: no modality, or an unknown pooling.
    """
    vectors, present = pool_all(fusion, features)
    projected = [
        nn.Dense(width or fusion.width, dtype=dtype, name=f'project_{modality}')(vector)
        for modality, vector in vectors.items()
    ]
    return fill_masked(jnp.stack(projected, axis=1), present), present


def stand_in(fusion: nn.Module, modality: str, vector: Array, present: Array) -> Array:
    """Returns `vector` `[B, D]`, and one learned vector in the rows that are not `present` `[B]`."""
    return jnp.where(present[:, None], vector, learned_vector(fusion, modality, vector.shape[-1], vector.dtype)[None])


def learned_vector(fusion: nn.Module, modality: str, width: int, dtype: jnp.dtype) -> Array:
    """Returns what stands for `modality` where a row lacks it, `[width]`."""
    return fusion.param(f'absent_{modality}', nn.initializers.normal(1.0), (width,)).astype(dtype)


def someone(present: Array) -> Array:
    """Returns, for every modality `[B, M]`, whether the row has any: then all take part, by themselves or a token."""
    return jnp.broadcast_to(jnp.any(present, axis=1, keepdims=True), present.shape)


def one_token(fused: Array, present: Array) -> Features:
    """Returns `fused` `[B, D]` as one token, zero and masked in rows where nothing is `present` `[B, M]`."""
    mask = jnp.any(present, axis=1, keepdims=True)
    return Features(tokens=fill_masked(fused[:, None], mask), mask=mask)


def sow_weights(fusion: nn.Module, features: Mapping[str, Features], weights: Array):
    """Leaves `{modality: [B]}` of `weights` `[B, M]` among the intermediates of `fusion`, where a report finds them."""
    named = {modality: weights[:, index] for index, modality in enumerate(sorted(features))}
    fusion.sow('intermediates', 'modality_weights', jax.lax.stop_gradient(named))
