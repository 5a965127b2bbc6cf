"""Fusion by modulation: some modalities scale and shift the channels of another."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.vectors import VectorFusion


class FiLM(VectorFusion):
    """Feature-wise linear modulation (Perez et al. 2018, 1709.07871, eq. 1 and 2): y = W_o (gamma * W_1 h_1 + beta).

    h_1 is the `modulated` modality, and gamma = 1 + sum_m A_m h_m, beta = sum_m B_m h_m over the others: a linear map
    of their concatenation, with gamma around 1 as in the paper. An absent one is left out of the sums; without the
    modulated one, y = W_o beta.

    Attributes:
      modulated: the modality h_1; None is the first by name.
    """

    modulated: str | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`.

        Raises:
          ValueError: `modulated` is no modality.
        """
        vectors, present = self.pool(features)
        if self.modulated is not None and self.modulated not in features:
            raise ValueError(f'FiLM: modulated must be one of {sorted(features)}, got {self.modulated!r}.')
        modulated = self.modulated or min(features)
        gamma, beta, base = 1.0, 0.0, 0.0
        for index, (modality, vector) in enumerate(vectors.items()):
            here = present[:, index, None]
            if modality == modulated:
                projected = nn.Dense(self.width, dtype=self.dtype, name=f'project_{modality}')(vector)
                base = jnp.where(here, projected, 0)
            else:
                generator = nn.Dense(2 * self.width, dtype=self.dtype, name=f'film_{modality}')
                scale, shift = jnp.split(jnp.where(here, generator(vector), 0), 2, axis=-1)
                gamma, beta = gamma + scale, beta + shift
        fused = nn.Dense(self.width, dtype=self.dtype, name='joint')(gamma * base + beta)
        return self.one_token(fused, present, train=train)
