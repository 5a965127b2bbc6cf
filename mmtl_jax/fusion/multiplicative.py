"""Multiplicative interactions: one modality sets the weights of the layer through which another goes."""

import itertools
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import VectorFusion

FORMS = ('matrix', 'vector', 'scalar')


class Multiplicative(VectorFusion):
    """y = sum_{m<n} g_mᵀ W_mn g_n + sum_m V_m g_m + b, with g_m = W_m h_m (Jayakumar et al., ICLR 2020, eq. 1).

    The paper has two modalities, sorted by name here; all pairs are summed for more. What an absent one would give is
    zero. The smaller forms of section 3 restrict the tensor that g_m contracts to a matrix: to a diagonal ('vector'),
    y = sum_{m<n} (W_mn g_m) * g_n + ..., or to a multiple of the identity ('scalar'), y = sum_{m<n} (w_mn · g_m) g_n.

    Attributes:
      form: 'matrix', 'vector' or 'scalar'.
      factor_width: size of g_m in the form 'matrix'; in the other two it is `width`.
    """

    form: str = 'matrix'
    factor_width: int = 32

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`.

        Raises:
          ValueError: an unknown form.
        """
        if self.form not in FORMS:
            raise ValueError(f'Multiplicative: form must be one of {FORMS}, got {self.form!r}.')
        vectors, present = self.project(features, self.factor_width if self.form == 'matrix' else self.width)
        fused = nn.Dense(self.width, dtype=self.dtype, name='linear')(vectors.reshape(len(vectors), -1))
        for (first, left), (second, right) in itertools.combinations(enumerate(sorted(features)), 2):
            fused = fused + self.interaction(vectors[:, first], vectors[:, second], f'{left}_{right}')
        return self.one_token(fused, present, train=train)

    def interaction(self, left: Array, right: Array, pair: str) -> Array:
        """Returns the term of a pair, `[B, width]`, for g_m and g_n `[B, F]`."""
        if self.form == 'matrix':
            shape = (left.shape[-1], right.shape[-1], self.width)
            # Variance 1 / F²: as many numbers are summed.
            kernel = self.param(f'interaction_{pair}', nn.initializers.lecun_normal(in_axis=(0, 1)), shape)
            left, right, kernel = nn.dtypes.promote_dtype(left, right, kernel, dtype=self.dtype)
            return jnp.einsum('bi,bj,ijd->bd', left, right, kernel)
        size = self.width if self.form == 'vector' else 1
        generator = nn.Dense(size, use_bias=False, dtype=self.dtype, name=f'interaction_{pair}')
        return generator(left) * right
