"""Directions that make the same angle with the gradient of every task."""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from mmtl_jax.balancing.arithmetic import reciprocal
from mmtl_jax.balancing.base import Balancer, Signals, check_length, from_weighting, mask_inactive
from mmtl_jax.balancing.imtl_l import IMTLLossState, imtl_l
from mmtl_jax.balancing.unit_rows import unit_rows
from mmtl_jax.core.types import Array


def imtl_g() -> Balancer:
    r"""Returns IMTL-G, the gradient balance of "Towards Impartial Multi-task Learning" (Liu et al., ICLR 2021).

    The direction d = sum of w_t g_t, with sum of w_t = 1, whose projections on all gradients are equal: with the matrix
    C of the cosines,

        C x = 1,    w_t = (x_t / |g_t|) / sum of x_s / |g_s|.

    It depends on the lengths of the gradients through one common factor only. The task-own heads receive their own
    task's gradient, as in TorchJD; for LibMTL's IMTL, the hybrid with learned loss scales, see `imtl`.

    Factor 1 against both libraries where the gradients are linearly independent. Where they are not, no such direction
    need exist: here x is the least-squares solution of least norm, which treats all tasks alike however long their
    gradients; TorchJD takes the pseudo-inverse of the Gramian itself, where long gradients count more, and LibMTL and
    the Nash-MTL code invert a singular matrix (both differ by some percent).

    Degenerate cases: a zero gradient has no angle: weight 0 (LibMTL: NaN), the others as without it. Where the sum of
    x_s / |g_s| vanishes, as for opposite gradients, the weights would be infinite: all are 0, as in TorchJD. A negative
    sum is the method's own: the direction then ascends on every task.
    """
    return from_weighting(_impartial_weights)


def imtl(learning_rate: float = 1e-3, *, init_log_scale: float = 0.0, optimizer: str = 'adam') -> Balancer:
    r"""Returns IMTL, loss and gradient balance of "Towards Impartial Multi-task Learning" (Liu et al., ICLR 2021).

    The losses are first scaled by `imtl_l`, then `imtl_g` balances the gradients of the scaled losses: with its weights
    a_t, which sum to 1, w_t = a_t exp(s_t). As the directions do not depend on the lengths of the gradients, the scales
    decide the length of this direction alone.

    Factor 1 against LibMTL's IMTL (TorchJD has only the parts), at the same s. The task-own heads receive their own
    task's gradient; in LibMTL and the paper, exp(s_t) times it.

    Degenerate cases: those of `imtl_l` and `imtl_g`.

    Args:
      learning_rate: of the log-scales.
      init_log_scale: s at the start.
      optimizer: name of an optax optimizer that takes a learning rate.

    Raises:
      ValueError: an unknown optimizer.
    """
    loss_balance = imtl_l(learning_rate, init_log_scale=init_log_scale, optimizer=optimizer)

    def update(signals: Signals, state: IMTLLossState) -> tuple[Array, IMTLLossState]:
        scales, state = loss_balance.update(signals, state)
        scales = scales.astype(signals.gramian.dtype)
        scaled = scales[:, None] * signals.gramian * scales[None, :]
        return scales * mask_inactive(_impartial_weights(scaled, signals.active), signals.active), state

    return Balancer(init=loss_balance.init, update=update, needs='gramian', heads='own')


def conflict_free(preference: Sequence[float] | None = None) -> Balancer:
    r"""Returns ConFIG, the conflict-free update (Liu et al., 2408.11104, equations 2 to 4).

    With U the gradients scaled to length 1 (rows), p the preference and U^+ the pseudo-inverse,

        d = U^+ p,    direction = (sum of g_t . d / |d|) d / |d|,

    whose cosine with g_t is proportional to p_t and whose length is the sum of the gradients' projections on it.
    Computed from the Gramian alone: U^+ = U^T (U U^T)^+. The task-own heads receive their own task's gradient.

    Factor 1 against TorchJD (LibMTL lacks the method). Where the gradients are linearly dependent, no such direction
    need exist; as in TorchJD it is then the least-squares solution. Singular values of U below sqrt(T eps) of the
    largest count as 0 (TorchJD: max(T, d) eps), for the Gramian does not know them.

    Degenerate cases: a zero gradient is left out of U, as in TorchJD. Opposite gradients, for which d = 0: weights 0.

    Args:
      preference: one positive number per task; None: equal.

    Raises:
      ValueError: a preference is not positive; from `init`, their number is not the number of tasks.
    """
    check_preference('conflict_free', preference)

    def update(signals: Signals, state: tuple) -> tuple[Array, tuple]:
        gramian, active = signals.gramian, signals.active
        p = jnp.ones_like(gramian[0]) if preference is None else jnp.asarray(preference, gramian.dtype)
        x, projections, length = _equiangular(gramian, p, active)
        ratio = jnp.sum(length * projections) * reciprocal(jnp.sum(x * projections))
        return mask_inactive(ratio * x * reciprocal(length), active), state

    return Balancer(init=preference_init(preference), update=update, needs='gramian', heads='own')


def check_preference(method: str, preference: Sequence[float] | None) -> None:
    """Raises a `ValueError` unless every preference is a positive number."""
    if preference is not None and not all(math.isfinite(value) and value > 0 for value in preference):
        raise ValueError(f'{method} needs positive preferences, got {tuple(preference)}.')


def preference_init(preference: Sequence[float] | None):
    """Returns the `init` of a balancer without state that has one preference per task."""

    def init(num_tasks: int) -> tuple:
        if preference is not None:
            check_length('preference', len(preference), num_tasks)
        return ()

    return init


def _impartial_weights(gramian: Array, active: Array) -> Array:
    """Returns the weights `[T]` of IMTL-G."""
    x, _, length = _equiangular(gramian, jnp.ones_like(gramian[0]), active)
    weights = x * reciprocal(length)
    total, scale = jnp.sum(weights), jnp.sum(jnp.abs(weights))
    defined = jnp.abs(total) > jnp.sum(active) * jnp.finfo(x.dtype).eps * scale
    return jnp.where(defined, weights * reciprocal(total), 0)


def _equiangular(gramian: Array, target: Array, active: Array) -> tuple[Array, Array, Array]:
    """Returns the least-squares solution x of least norm of C x = target, C x, and the gradients' lengths, all `[T]`.

    x is 0 if the target has, up to rounding, no part in the range of the cosines C.
    """
    length, cosine, nonzero = unit_rows(gramian, active)
    cosine = jnp.where(nonzero[:, None], cosine, 0)
    target = jnp.where(nonzero, target, 0)
    values, vectors = jnp.linalg.eigh(cosine)
    tolerance = jnp.sum(active) * jnp.finfo(cosine.dtype).eps
    kept = values > tolerance * values[-1]
    parts = jnp.where(kept, jnp.matmul(target, vectors, precision='highest'), 0)
    inside = jnp.sum(parts**2) > tolerance * jnp.sum(target**2)
    x = jnp.matmul(vectors, parts * reciprocal(jnp.where(kept, values, 0)), precision='highest')
    x = jnp.where(inside, x, 0)
    return x, jnp.matmul(cosine, x, precision='highest'), length
