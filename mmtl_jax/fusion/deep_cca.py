"""Deep canonical correlation analysis (Andrew et al., ICML 2013), for two modalities or more."""

from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Fused
from mmtl_jax.fusion.shared_space import Decoder, SharedSpace
from mmtl_jax.nn import fill_masked


class DeepCCA(SharedSpace):
    """y = W [f_1(x_1); ...; f_M(x_M)], where the f_m learn to be correlated; zeros for an absent modality.

    Objectives:
      cca: 1 - the mean canonical correlation between two modalities over the rows that have both, averaged over the
        pairs of modalities; see `mean_correlation`. It belongs to the batch: every row has the same value, 0 if no pair
        has two rows. While a batch has no more rows than there are components, chance alone correlates them.

    Attributes:
      components: size of the f_m.
      regularization: r_1 = r_2 of the paper, added to the variances.
    """

    least: ClassVar[int] = 2

    components: int = 16
    regularization: float = 1e-3

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Fused:
        """Returns y as one token `[B, 1, width]`, with the objective."""
        vectors, present = self.standardised(features)
        views = []
        for index, (modality, vector) in enumerate(vectors.items()):
            view = Decoder(self.width, self.components, self.dtype, name=f'view_{modality}')(vector)
            views.append(fill_masked(view, present[:, index]))
        losses, counted = [], []
        for one, other in combinations(range(len(views)), 2):
            both = present[:, one] & present[:, other]
            losses.append(1 - mean_correlation(views[one], views[other], both, self.regularization))
            counted.append(jnp.sum(both) > 1)
        counted = jnp.stack(counted)
        loss = jnp.sum(jnp.where(counted, jnp.stack(losses), 0)) / jnp.maximum(jnp.sum(counted), 1)
        joint = nn.Dense(self.width, dtype=self.dtype, name='joint')(jnp.concatenate(views, axis=-1))
        return self.fused(joint, present, {'cca': jnp.broadcast_to(loss, present.shape[:1])}, train=train)


def mean_correlation(one: Array, other: Array, mask: Array, regularization: float) -> Array:
    r"""Returns the mean of the K canonical correlations of two views over the real rows, a scalar.

    With the centred views H_1 and H_2 of n rows, S_ij = H_i^T H_j / (n - 1), plus r I for i = j, the sum of the
    correlations is the trace norm of T = S_11^(-1/2) S_12 S_22^(-1/2) (equations 8 to 10). T has the singular values of
    L_1^(-1) S_12 L_2^(-T) with the Cholesky factors L_i of S_ii, and U V^T of its singular value decomposition is a
    gradient of the trace norm also where singular values are equal or zero: both are differentiated without dividing by
    the difference of eigenvalues.

    Args:
      one: `[B, K]`.
      other: `[B, K]`.
      mask: `[B]` bool; fewer than two rows have a correlation of 0.
      regularization: r, above 0.
    """
    weights = mask.astype(jnp.float32)[:, None]
    count = jnp.sum(weights)

    def centred(view: Array) -> Array:
        view = fill_masked(view, mask).astype(jnp.float32)
        return weights * (view - jnp.sum(view, axis=0, keepdims=True) / jnp.maximum(count, 1))

    def factor(view: Array) -> Array:
        return jnp.linalg.cholesky(view.T @ view / degrees + regularization * jnp.eye(view.shape[1]))

    one, other, degrees = centred(one), centred(other), jnp.maximum(count - 1, 1)
    # Rounded to the few bits of an accelerator's quick products, the variances need not be positive definite.
    with jax.default_matmul_precision('highest'):
        half = jax.scipy.linalg.solve_triangular(factor(one), one.T @ other / degrees, lower=True)
        whitened = jax.scipy.linalg.solve_triangular(factor(other), half.T, lower=True)
        left, _, right = jnp.linalg.svd(jax.lax.stop_gradient(whitened), full_matrices=False)
        return jnp.sum(whitened * (left @ right)) / whitened.shape[0]
