"""Aligned-MTL: balancing the principal components of the gradients."""

from collections.abc import Sequence

import jax.numpy as jnp

from mmtl_jax.balancing.arithmetic import reciprocal
from mmtl_jax.balancing.base import Balancer, Signals, mask_inactive
from mmtl_jax.balancing.equiangular import check_preference, preference_init
from mmtl_jax.core.types import Array

SCALES = ('min', 'median', 'rmse')


def aligned_mtl(
    scale: str = 'min', *, preference: Sequence[float] | None = None, rank_tolerance: float | None = None
) -> Balancer:
    r"""Returns Aligned-MTL, which gives all principal components one length (Senushkin et al., 2305.19000, section 4).

    With the Gramian G = V diag(lambda) V^T, restricted to its r eigenvalues above `rank_tolerance` times the largest,

        w = sqrt(sigma) V diag(lambda)^(-1/2) V^T p,

    where sigma is the smallest of them (the paper's, and the only one of LibMTL), their lower median, or their mean,
    the square of the root mean square of the singular values (these two are TorchJD's). The gradients are replaced by
    the nearest ones that are orthogonal and of one length, and p says how much each then counts. The task-own heads
    receive their own task's gradient, as in LibMTL and TorchJD.

    With the default p = 1, the sum: factor 1 against LibMTL, T against TorchJD, whose p is 1 / T.

    The result jumps where an eigenvalue crosses the tolerance, by a factor of thousands for nearly parallel gradients
    (sigma is the least eigenvalue that counts). Both libraries take T eps of torch's default dtype, also for a Gramian
    of another dtype; here it is T eps of the Gramian's dtype, or what you say.

    Degenerate cases: equal or opposite gradients have one component, which is kept as it is; a zero gradient has the
    weight 0; without any gradient, all have.

    Args:
      scale: 'min', 'median' or 'rmse'.
      preference: p, one positive number per task; None: 1 for all.
      rank_tolerance: eigenvalues at most this times the largest count as 0; None: T eps, T of the active tasks.

    Raises:
      ValueError: an unknown scale, a preference that is not positive, a tolerance outside [0, 1); from `init`, the
        number of preferences is not the number of tasks.
    """
    if scale not in SCALES:
        raise ValueError(f'aligned_mtl knows the scales {list(SCALES)}, got {scale!r}.')
    if rank_tolerance is not None and not 0 <= rank_tolerance < 1:
        raise ValueError(f'aligned_mtl needs a rank_tolerance in [0, 1), got {rank_tolerance}.')
    check_preference('aligned_mtl', preference)

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        # Of mean diagonal 1, so that nothing underflows.
        size = jnp.trace(signals.gramian)
        values, vectors = jnp.linalg.eigh(signals.gramian * reciprocal(size))
        tolerance = rank_tolerance
        if tolerance is None:
            tolerance = jnp.sum(signals.active) * jnp.finfo(values.dtype).eps
        kept = (values > tolerance * values[-1]) & (values > 0)
        p = jnp.ones_like(values) if preference is None else jnp.asarray(preference, values.dtype)
        parts = jnp.matmul(mask_inactive(p, signals.active), vectors, precision='highest')
        stretch = jnp.where(kept, jnp.sqrt(_sigma(scale, values, kept) * reciprocal(jnp.where(kept, values, 0))), 0)
        weights = jnp.matmul(vectors, stretch * parts, precision='highest')
        return mask_inactive(weights, signals.active), state

    return Balancer(init=preference_init(preference), update=update, needs='gramian', heads='own')


def _sigma(scale: str, values: Array, kept: Array) -> Array:
    """Returns the square of the common length; `values` ascend, so that those kept are the last."""
    rank = jnp.sum(kept)
    if scale == 'rmse':
        return jnp.sum(jnp.where(kept, values, 0)) / jnp.maximum(rank, 1)
    first = len(values) - rank
    return values[jnp.minimum(first + (rank - 1) // 2 if scale == 'median' else first, len(values) - 1)]
