"""IMTL-G, IMTL and ConFIG against published implementations and against the angles that define them."""

import numpy as np
import pytest

from mmtl_jax.balancing import conflict_free, imtl, imtl_g
from tests.balancing.golden import JACOBIANS, LOSSES, SEQUENCE, goldens
from tests.balancing.replay import (
    SINGULAR,
    ZERO_ROW,
    assert_matrices,
    assert_sequence,
    on_matrices,
    on_sequence,
    start,
    step,
    steps,
)

# By number of tasks.
PREFERENCES = {2: [0.2, 0.8], 3: [0.1, 0.3, 0.6], 5: [0.1, 0.3, 0.2, 0.15, 0.25]}


def test_imtl_g_equals_the_published_implementations():
    got = on_matrices(imtl_g())
    # Where the Gramian is singular the peers disagree with each other, by 3 % of the Jacobian.
    assert_matrices(got, 'torchjd08', 'IMTLG', rtol=1e-12, without=[SINGULAR])
    for part, method, hyperparameters in (('libmtl', 'IMTL', 'loss_scale=0'), ('nashmtl', 'imtl', '')):
        # NaN on a zero gradient.
        assert_matrices(got, part, method, hyperparameters, rtol=1e-12, without=[SINGULAR, ZERO_ROW])


def test_imtl_g_of_dependent_gradients_is_the_least_squares_solution_of_least_norm():
    rows = JACOBIANS[SINGULAR]
    lengths = np.linalg.norm(rows, axis=1)
    units = rows / lengths[:, None]
    # The cosines to within rounding: a threshold far below their fourth and far above their fifth singular value.
    solution = np.linalg.lstsq(units @ units.T, np.ones(5), rcond=1e-10)[0] / lengths
    np.testing.assert_allclose(on_matrices(imtl_g())[SINGULAR], solution @ rows / solution.sum(), rtol=1e-10)


def test_imtl_g_projects_equally_on_every_task():
    rows = np.random.default_rng(1).normal(size=(100, 6, 20)) * np.logspace(-3, 3, 6)[:, None]
    directions, weights = steps(imtl_g(), rows)
    projections = np.einsum('ntd,nd->nt', rows, directions) / np.linalg.norm(rows, axis=2)
    np.testing.assert_allclose(projections, np.broadcast_to(projections[:, :1], (100, 6)), rtol=1e-8)
    np.testing.assert_allclose(np.sum(weights, axis=1), np.ones(100), rtol=1e-8)


@pytest.mark.parametrize('method', [imtl_g, conflict_free])
def test_opposite_gradients_have_no_common_direction(method):
    gradient = np.array([1.0, 2.0, -1.0])
    for length in (1.0, 3.0, 1e4):
        direction, weights, _ = step(method(), np.stack([gradient, -length * gradient]))
        np.testing.assert_array_equal(weights, [0, 0])
        np.testing.assert_array_equal(direction, np.zeros(3))


@pytest.mark.parametrize('method', [imtl_g, conflict_free])
def test_a_zero_gradient_changes_nothing_for_the_others(method):
    rows = np.array(JACOBIANS['t3_d10'])
    with_zero = np.concatenate([rows[:1], np.zeros((1, 10)), rows[1:]])
    direction, weights, _ = step(method(), with_zero)
    expected, _, _ = step(method(), rows)
    assert weights[1] == 0
    np.testing.assert_allclose(direction, expected, rtol=1e-5)


def test_imtl_follows_the_published_trajectory():
    balancer = imtl(0.1, optimizer='sgd')
    assert_matrices(on_matrices(balancer), 'libmtl', 'IMTL', 'loss_scale=0', rtol=1e-12, without=[SINGULAR, ZERO_ROW])
    assert_sequence(on_sequence(balancer), 'libmtl', 'IMTL', 'SGD lr=0.1', rtol=1e-12)
    (golden,) = goldens('libmtl', 'IMTL', 'SGD lr=0.1', 's3')
    state = start(balancer, 3)
    for k in range(5):
        np.testing.assert_allclose(state.log_scale, golden.arrays['param'][k], rtol=1e-12, atol=1e-15)
        _, _, state = step(balancer, SEQUENCE['J'][k], SEQUENCE['losses'][k], state)


def test_imtl_only_rescales_the_direction_of_imtl_g():
    rows, losses = JACOBIANS['t3_d10'], LOSSES['t3_d10']
    balancer = imtl()
    hybrid, _, _ = step(balancer, rows, losses, start(balancer, 3)._replace(log_scale=np.array([-2.0, 0.5, 1.0])))
    plain, _, _ = step(imtl_g(), rows)
    np.testing.assert_allclose(hybrid / np.linalg.norm(hybrid), plain / np.linalg.norm(plain), rtol=1e-12)
    assert np.linalg.norm(hybrid) != pytest.approx(np.linalg.norm(plain), rel=0.1)


def test_conflict_free_equals_the_published_implementation():
    assert_matrices(on_matrices(conflict_free()), 'torchjd08', 'ConFIG', rtol=1e-12)


@pytest.mark.parametrize('num_tasks', PREFERENCES)
def test_conflict_free_equals_the_published_implementation_with_a_preference(num_tasks):
    preference = PREFERENCES[num_tasks]
    got = on_matrices(conflict_free(preference + [1.0] * (5 - num_tasks)))
    others = [name for name, rows in JACOBIANS.items() if len(rows) != num_tasks]
    assert_matrices(got, 'torchjd08', 'ConFIG', 'pref', rtol=1e-12, without=others)


def test_conflict_free_has_the_cosines_preferred_and_the_length_of_the_projections():
    preference = np.array([1.0, 0.5, 2.0, 3.0])
    rows = np.random.default_rng(2).normal(size=(4, 9)) * np.array([[1e-3], [1.0], [1e3], [5.0]])
    direction, _, _ = step(conflict_free(tuple(preference)), rows)
    length = np.linalg.norm(direction)
    projections = rows @ direction / length
    cosines = projections / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(cosines / preference, np.full(4, cosines[0]), rtol=1e-10)
    np.testing.assert_allclose(length, projections.sum(), rtol=1e-10)


@pytest.mark.parametrize('preference', [[1.0, 0.0], [1.0, -2.0], [float('nan'), 1.0]])
def test_conflict_free_refuses_what_is_no_preference(preference):
    with pytest.raises(ValueError, match='conflict_free needs positive preferences'):
        conflict_free(preference)
