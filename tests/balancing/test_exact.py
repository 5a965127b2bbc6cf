"""The methods defined by an optimisation problem against SciPy, on Jacobians of every awkward kind.

An error is relative to the Frobenius norm of the Jacobian, that of the bargaining methods to the direction's own norm.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import balancing
from mmtl_jax.balancing import Signals
from tests.balancing import exact
from tests.balancing.golden import JACOBIANS, MATRICES, goldens

METHODS = {
    'mgda': (balancing.mgda(), exact.least_norm),
    'upgrad': (balancing.upgrad(), exact.upgrad),
    'dual_projection': (balancing.dual_projection(), lambda rows: exact.dual_projection(rows, rows.mean(axis=0))),
    'cagrad .5': (balancing.cagrad(0.5, 0), lambda rows: exact.cagrad(rows, 0.5)),
    'cagrad 1': (balancing.cagrad(1.0, 0), lambda rows: exact.cagrad(rows, 1.0)),
}
BARGAINS = {0.5: balancing.fairgrad(0.5, None), 1.0: balancing.nash_mtl(None), 2.0: balancing.fairgrad(2.0, None)}
# What float64 can do is 1e-13; the rest is SciPy's.
TOLERANCE = {jnp.float64: 1e-8, jnp.float32: 1e-4}
# The largest error where the tolerance cannot be kept, by the number of Jacobians; measured 1.4e-3 and 2e-2.
WORST = {96: 2e-3, 1000: 3e-2}
both = pytest.mark.parametrize('dtype', TOLERANCE)
counts = pytest.mark.parametrize('count', [96, pytest.param(1000, marks=pytest.mark.slow)])


@functools.cache
def problems(count):
    return exact.jacobians(count)


@functools.cache
def solved(method, count):
    return [METHODS[method][1](rows) for _, rows in problems(count)]


def weights_of(balancer, matrices, dtype):
    """Returns the weights for each matrix, float64, computed in one compiled call for all."""
    with jax.enable_x64(dtype == jnp.float64):
        rows, active = exact.padded(matrices)

        @jax.jit
        def run(rows, active):
            def one(problem):
                rows, active = problem
                gramian = jnp.matmul(rows, rows.T, precision='highest')
                return balancer.update(Signals(jnp.ones(len(active), dtype), active, gramian), ())[0]

            return jax.lax.map(one, (rows, active))

        weights = np.asarray(run(rows.astype(dtype), active), np.float64)
    assert np.isfinite(weights).all()
    assert (weights[~active] == 0).all()
    return [weights[k, : len(matrix)] for k, matrix in enumerate(matrices)]


@both
@counts
@pytest.mark.parametrize('method', METHODS)
def test_random_jacobians(method, count, dtype):
    matrices = [rows for _, rows in problems(count)]
    weights = weights_of(METHODS[method][0], matrices, dtype)
    errors = [
        np.linalg.norm(rows.T @ weight - expected) / np.linalg.norm(rows) if rows.any() else 0
        for (_, rows), weight, expected in zip(problems(count), weights, solved(method, count), strict=True)
    ]
    worst = int(np.argmax(errors))
    message = f'{errors[worst]} at {worst}, {problems(count)[worst][0]}, {problems(count)[worst][1].shape}'
    # More tasks than dimensions can need combinations that all but cancel, of which a float32 Gramian knows little.
    if dtype == jnp.float32:
        assert np.mean(np.array(errors) <= TOLERANCE[dtype]) >= 0.98, message
        assert errors[worst] <= WORST[count], message
    else:
        assert errors[worst] <= TOLERANCE[dtype], message


@counts
@pytest.mark.parametrize('alpha', BARGAINS)
def test_bargains_satisfy_their_equation(alpha, count):
    matrices = [rows for _, rows in problems(count)]
    weights = weights_of(BARGAINS[alpha], matrices, jnp.float64)
    singles = weights_of(BARGAINS[alpha], matrices, jnp.float32)
    seen = 0
    for (kind, rows), weight, single in zip(problems(count), weights, singles, strict=True):
        lengths = np.linalg.norm(rows, axis=1)
        if exact.is_stationary(rows) or not rows.any():
            assert not weight.any(), kind
            continue
        assert (weight[lengths == 0] == 0).all()
        gains, weight = (rows @ (rows.T @ weight))[lengths > 0], weight[lengths > 0]
        # The sum of residual times weight bounds the squared error of the direction (the equation is monotone); for
        # alpha = 1 so does the residual relative to the gain.
        residual = np.linalg.norm(gains * weight ** (1 / alpha) - 1)
        assert (weight > 0).all()
        direction = rows[lengths > 0].T @ weight
        error = np.abs(gains - weight ** (-1 / alpha)) @ weight / (direction @ direction)
        assert error <= 1e-8, (kind, rows.shape, error)
        if alpha == 1:
            assert residual <= 1e-8, (kind, rows.shape, residual)
            np.testing.assert_allclose(direction @ direction, len(weight), rtol=1e-8)
        # float32 holds the squared least norm of the unit rows' hull to 1e-7, and the direction to that over it.
        if np.linalg.norm(exact.least_norm(exact.unit(rows)[1])) ** 2 >= 1e-2:
            seen += 1
            error = np.linalg.norm(rows.T @ single - direction) / np.linalg.norm(direction)
            assert error <= 1e-4, (kind, rows.shape, error)
    assert seen > count / 4


REFERENCES = [
    ('MGDA', 'exact', balancing.mgda()),
    ('UPGrad', 'exact,reg=0.0', balancing.upgrad()),
    ('UPGrad', 'exact,reg=1e-12', balancing.upgrad()),
    ('DualProj', 'exact,reg=0.0', balancing.dual_projection()),
    ('DualProj', 'exact,reg=1e-12', balancing.dual_projection()),
    ('NashMTL', 'exact (unclipped)', balancing.nash_mtl(max_norm=None)),
    ('CAGrad', 'c=0.2,rescale=0', balancing.cagrad(0.2, 0)),
    ('CAGrad', 'c=0.5,rescale=0', balancing.cagrad(0.5, 0)),
    ('CAGrad', 'c=1.0,rescale=0', balancing.cagrad(1.0, 0)),
]


@both
@pytest.mark.parametrize('scale', [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ('method', 'hyperparameters', 'balancer'), REFERENCES, ids=lambda x: x if isinstance(x, str) else ''
)
def test_recorded_solutions(method, hyperparameters, balancer, scale, dtype):
    weights = dict(
        zip(MATRICES, weights_of(balancer, [scale * JACOBIANS[name] for name in MATRICES], dtype), strict=True)
    )
    for golden in goldens('reference', method, hyperparameters):
        rows, expected = JACOBIANS[golden.target], golden.arrays['agg']
        if method == 'CAGrad' and golden.target == 't3_d20_zerorow':
            continue  # No direction is a gain for all, so the problem has many solutions; decided in test_cagrad.
        # A bargain does not depend on the scale.
        direction = scale * rows.T @ weights[golden.target] if method == 'NashMTL' else rows.T @ weights[golden.target]
        norm = np.linalg.norm(expected if method == 'NashMTL' else rows)
        # The recorded CAGrad satisfies its own conditions to 9e-7 only; test_random_jacobians has the 1e-8.
        tolerance = max(TOLERANCE[dtype], 1e-6 if method == 'CAGrad' else 0)
        error = np.linalg.norm(direction - expected) / norm
        assert error <= tolerance, (golden.target, error)
