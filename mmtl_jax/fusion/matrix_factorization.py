"""Joint matrix factorisation of all modalities, with missing entries."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import SharedSpace
from mmtl_jax.nn import fill_masked

# Of modalities, whose matrices are all factored, also those that no row of the batch has.
MOST_SUBSETS = 32


class MatrixFactorization(SharedSpace):
    r"""[X_1, ..., X_M] = U V^T over the entries that there are; the row u of U is the result.

    A row misses all entries of a modality or none. Given V, its u is the exact minimiser of

        sum_m a_m |x_m - b_m - V_m u|^2 + ridge |u|^2,

    in closed form, so that a row which training has not seen has one too. This is the regularised factorisation of
    Salakhutdinov & Mnih (NIPS 2007), shared between matrices as in collective matrix factorisation (Singh & Gordon, KDD
    2008). Its penalty on V is the optimizer's weight decay.

    Objectives:
      reconstruction: the sum above at its minimum, by the number of entries that the row has. Its gradient is that of
        alternating least squares: by V and b at the given u, and none by the encoders.

    Attributes:
      ridge: weight of |u|^2, above 0.
    """

    ridge: float = 0.1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns u as one token `[B, 1, width]`, with the objective.

        Raises:
          ValueError: `ridge` is not above 0.
        """
        if self.ridge <= 0:
            raise ValueError(f'MatrixFactorization: ridge must be above 0, got {self.ridge}.')
        vectors, present = self.standardised(features)
        matrices = {
            modality: self.param(f'matrix_{modality}', nn.initializers.lecun_normal(), (self.width, vector.shape[-1]))
            for modality, vector in vectors.items()
        }
        means = {
            modality: self.param(f'mean_{modality}', nn.initializers.zeros, vector.shape[-1:])[None]
            for modality, vector in vectors.items()
        }
        centred = [vector - means[modality] for modality, vector in vectors.items()]
        code = least_squares(centred, [*matrices.values()], present, self.ridge)
        sizes = jnp.array([vector.shape[-1] for vector in vectors.values()], jnp.float32)
        errors = [
            jnp.sum(jnp.square(means[modality] + code @ matrices[modality] - jax.lax.stop_gradient(vector)), axis=-1)
            for modality, vector in vectors.items()
        ]
        total = jnp.sum(jnp.where(present, jnp.stack(errors, axis=1), 0), axis=1)
        total += self.ridge * jnp.sum(jnp.square(code), axis=1)
        error = total / jnp.maximum(present @ sizes, 1)
        return self.fused(code, present, {'reconstruction': error}, train=train)


def least_squares(targets: list[Array], matrices: list[Array], present: Array, ridge: float) -> Array:
    """Returns the u `[B, K]` that minimise sum_m a_m |x_m - V_m u|^2 + ridge |u|^2, by Cholesky factors.

    The matrix to factor depends on which modalities a row has, and on nothing else; up to `MOST_SUBSETS` subsets each
    is factored once, beyond that once for every row.

    Args:
      targets: M arrays x_m `[B, D_m]`.
      matrices: M arrays V_m^T `[K, D_m]`.
      present: a, `[B, M]` bool.
      ridge: above 0.
    """
    # Rounded to the few bits of an accelerator's quick products, the left side need not be positive definite.
    with jax.default_matmul_precision('highest'):
        gramians = jnp.stack([matrix @ matrix.T for matrix in matrices])
        right = sum(fill_masked(x, present[:, m]) @ matrices[m].T for m, x in enumerate(targets))

    def solve(subset: Array, right: Array) -> Array:
        """Returns the minimisers `[n, K]` for rows that have the modalities of `subset` `[M]`."""
        left = jnp.sum(jnp.where(subset[:, None, None], gramians, 0), axis=0) + ridge * jnp.eye(right.shape[1])
        return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(left, lower=True), right.T).T

    subsets = 2 ** len(targets)
    if subsets > MOST_SUBSETS:
        return jax.vmap(solve)(present, right[:, None])[:, 0]
    bits = jnp.arange(len(targets))
    solved = jax.lax.map(lambda number: solve((number >> bits) % 2 == 1, right), jnp.arange(subsets))
    return solved[jnp.sum(present << bits[None], axis=1), jnp.arange(len(right))]
