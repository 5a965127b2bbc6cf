"""Methods with independent gradients from parts of the batch: MoDo and SDMGrad.

The product of two independent gradients estimates that of their means without bias, which the Gramian of one batch
does not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmtl_jax.balancing import simplex
from mmtl_jax.balancing.arithmetic import reciprocal
from mmtl_jax.balancing.base import Balancer, Signals, active_mean, mask_inactive
from mmtl_jax.core.types import Array


class SimplexState(NamedTuple):
    """Attributes: weights `[T]`, from 1 for each task on; only their ratios matter."""

    weights: Array


def modo(*, gamma: float = 0.1, rho: float = 0.1, relative: bool = True) -> Balancer:
    r"""Returns MoDo, multi-objective gradients with double sampling (Chen et al., 2305.20057, algorithm 1).

    With the Jacobians J1, J2, J3 of three parts of the batch and P the projection onto the simplex, from
    lambda = 1 / T,

        lambda <- P(lambda - gamma (J1 J2^T + rho I) lambda),    direction = J3^T lambda.

    The task-own heads receive their own task's gradient, as in LibMTL. Factor 1 against LibMTL and TorchJD with
    `relative=False`. rho is that of both; gamma is TorchJD's (LibMTL: 0.001).

    Degenerate cases: for zero gradients, rho alone moves lambda, to equal weights. Of opposite gradients, lambda
    approaches the weights that cancel.

    Args:
      gamma: step size of lambda.
      rho: regularisation of lambda towards equal weights.
      relative: divide J1 J2^T by the square of its scale, the mean root of its positive diagonal entries (SDMGrad's),
        so that the weights do not depend on the scale of the gradients; False: as published.

    Raises:
      ValueError: gamma or rho is negative.
    """
    if gamma < 0 or rho < 0:
        raise ValueError(f'modo needs gamma and rho >= 0, got {gamma} and {rho}.')

    def update(signals: Signals, state: SimplexState) -> tuple[Array, SimplexState]:
        active = signals.active
        products = signals.gramian[0, 1]
        if relative:
            products = _relative(products, active)
        before = simplex.restrict(state.weights.astype(products.dtype), active)
        slope = jnp.matmul(products, before, precision='highest') + rho * before
        after = simplex.project(before - gamma * slope, active)
        weights = jnp.zeros(signals.losses.shape, products.dtype).at[2].set(after)
        return weights, _stored(after, active, state)

    return Balancer(init=_equal_weights, update=update, needs='gramian', heads='own', splits=3)


def sdmgrad(
    *, regularization: float = 0.3, learning_rate: float = 5.0, momentum: float = 0.5, num_iterations: int = 20
) -> Balancer:
    r"""Returns SDMGrad, direction-oriented stochastic multi-objective descent (Xiao et al., 2305.18409, algorithm 1).

    With the Jacobians J1, J2, J3 of three parts of the batch, A = J2 J3^T over the square of its scale (the mean root
    of its positive diagonal entries) and lambda the regularisation, w descends on w^T A w / 2 + lambda w^T A 1 / T over
    the simplex, by `num_iterations` projected steps with momentum from the w of the step before (1 / T at first):

        v <- momentum v + A (w + lambda / T),    w <- P(w - learning_rate v),
        direction = J1^T (w + lambda / T) / (1 + lambda).

    The task-own heads receive their own task's gradient (LibMTL: the sum of that of the three parts). Factor 1 against
    LibMTL, without its 1e-8 beside the squared scale, from which chaotic steps part slowly; TorchJD's default learning
    rate is 10 and its direction J1^T w. Defaults are LibMTL's.

    Degenerate cases: without a positive diagonal entry the scale is the root of the largest entry in absolute value;
    for A = 0, w stays.

    Args:
      regularization: lambda, the pull of the direction to the mean gradient.
      learning_rate: of w.
      momentum: of w, from 0 to 1 (not included); it starts at 0 in every step.
      num_iterations: of w, each step.

    Raises:
      ValueError: a number is out of range.
    """
    if regularization < 0 or learning_rate < 0 or not 0 <= momentum < 1 or num_iterations < 1:
        raise ValueError(
            'sdmgrad needs regularization and learning_rate >= 0, momentum in [0, 1) and num_iterations >= 1, '
            f'got {regularization}, {learning_rate}, {momentum} and {num_iterations}.'
        )

    def update(signals: Signals, state: SimplexState) -> tuple[Array, SimplexState]:
        active = signals.active
        products = _relative(signals.gramian[1, 2], active)
        pull = mask_inactive(jnp.full_like(products[0], regularization), active) / jnp.maximum(jnp.sum(active), 1)

        def iterate(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            w, velocity = carry
            velocity = momentum * velocity + jnp.matmul(products, w + pull, precision='highest')
            return simplex.project(w - learning_rate * velocity, active), velocity

        start = simplex.restrict(state.weights.astype(products.dtype), active)
        w, _ = jax.lax.fori_loop(0, num_iterations, iterate, (start, jnp.zeros_like(start)))
        weights = jnp.zeros(signals.losses.shape, products.dtype).at[0].set((w + pull) / (1 + regularization))
        return weights, _stored(w, active, state)

    return Balancer(init=_equal_weights, update=update, needs='gramian', heads='own', splits=3)


def _equal_weights(num_tasks: int) -> SimplexState:
    return SimplexState(jnp.ones(num_tasks))


def _stored(weights: Array, active: Array, state: SimplexState) -> SimplexState:
    return SimplexState(simplex.extend(weights.astype(state.weights.dtype), active, state.weights))


def _relative(products: Array, active: Array) -> Array:
    """Returns the products `[T, T]` of independent gradients over the square of their scale."""
    largest = jnp.max(jnp.abs(products))
    products = products * reciprocal(largest)
    scale = active_mean(jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0)), active)
    return products / jnp.where(scale > 0, scale**2, 1)
