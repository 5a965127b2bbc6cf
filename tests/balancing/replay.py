"""Balancers on the recorded matrices and the recorded sequence, in float64."""

import jax
import numpy as np

from mmtl_jax.balancing import Balancer, aggregate
from tests.balancing.golden import JACOBIANS, LOSSES, MATRICES, SEQUENCE, goldens

TASKS, WIDTH = 5, 200
# A row of zeros: Pareto-stationary, where some of the implementations return NaN.
ZERO_ROW = 't3_d20_zerorow'
# More tasks than parameters: the Gramian is singular.
SINGULAR = 't5_d4_rankdef'


_aggregate = jax.jit(aggregate, static_argnums=0)


def step(balancer: Balancer, jacobian, losses=None, state=None):
    """Returns direction, weights and state as numpy arrays, in float64 for arguments in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _aggregate(balancer, jacobian, losses, state))


def steps(balancer: Balancer, jacobians):
    """Returns directions and weights of the first step, by Jacobian, as `step` does."""
    with jax.enable_x64(True):
        first = jax.jit(jax.vmap(lambda jacobian: aggregate(balancer, jacobian)[:2]))
        return jax.tree.map(np.asarray, first(jacobians))


def start(balancer: Balancer, num_tasks: int, width: int = 0):
    """Returns the first state in float64 as numpy arrays; `width` of the gradients, for a balancer that needs them."""
    with jax.enable_x64(True):
        gradient = (np.zeros(width),) if balancer.needs == 'jacobian' else ()
        return jax.tree.map(np.asarray, balancer.init(num_tasks, *gradient))


def on_matrices(balancer: Balancer, order: int = 1) -> dict[str, np.ndarray]:
    """Returns the direction of the first step by matrix; all in one shape, for which tasks sit out.

    Args:
      balancer: of five tasks.
      order: -1 to reverse the tasks.
    """
    jacobians, losses = np.full((len(MATRICES), TASKS, WIDTH), np.nan), np.ones((len(MATRICES), TASKS))
    for index, name in enumerate(MATRICES):
        num_tasks, width = JACOBIANS[name].shape
        jacobians[index, :num_tasks] = 0
        jacobians[index, :num_tasks, :width] = JACOBIANS[name][::order]
        losses[index, :num_tasks] = LOSSES[name][::order]
    with jax.enable_x64(True):
        directions = jax.jit(jax.vmap(lambda jacobian, losses: aggregate(balancer, jacobian, losses)[0]))(
            jacobians, losses
        )
        return {
            name: np.asarray(direction[: JACOBIANS[name].shape[1]])
            for name, direction in zip(MATRICES, directions, strict=True)
        }


def on_sequence(balancer: Balancer, order: int = 1) -> np.ndarray:
    """Returns the directions `[20, d]` along the recorded sequence, or that of three mini-batches for three splits."""
    batches = ('J', 'losses') if balancer.splits == 1 else ('J3', 'l3')
    jacobians, losses = (SEQUENCE[batch] for batch in batches)
    if order == -1:
        jacobians, losses = jacobians[..., ::-1, :], losses[..., ::-1]
    with jax.enable_x64(True):

        def follow(state, batch):
            direction, _, state = aggregate(balancer, *batch, state)
            return state, direction

        state = start(balancer, 3, jacobians.shape[-1])
        return np.asarray(
            jax.jit(lambda state, batches: jax.lax.scan(follow, state, batches)[1])(state, (jacobians, losses))
        )


def assert_matrices(got, part, method, hyperparameters='', *, factor=1.0, rtol=1e-10, without=()):
    """Compares directions by matrix with the recorded ones times `factor`, relative to the size of the Jacobian."""
    for golden in goldens(part, method, hyperparameters):
        if golden.target not in got or golden.target in without:
            continue
        error = np.max(np.abs(got[golden.target] - factor * golden.arrays['agg']))
        assert error <= rtol * np.linalg.norm(JACOBIANS[golden.target]), (golden.target, error)


def assert_sequence(got, part, method, hyperparameters, *, rtol=1e-10, steps=20):
    """Compares the directions with the recorded ones of the sequence, relative to the size of the largest."""
    (golden,) = goldens(part, method, hyperparameters, 's3')
    expected = golden.arrays['agg'][:steps]
    np.testing.assert_allclose(got[:steps], expected, rtol=0, atol=rtol * np.max(np.abs(expected)))
