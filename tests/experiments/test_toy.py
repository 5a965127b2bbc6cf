"""The toy problem: its losses, its front, the runs, and the command."""

import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from experiments import toy
from experiments.toy_problem import REACH, STARTS, losses, losses_at, losses_on_grid, pareto_front
from mmtl_jax import balancing

# Nash-MTL takes 35,000. The same for all tests, so that each method compiles once; no multiple of the stride.
STEPS, SCALES = 35_050, (0.1, 0.5)


def by_hand(x, y):
    """The formulas of the paper's appendix, in float64; the first loss is not scaled."""
    f1 = np.log(np.maximum(np.abs(0.5 * (-x - 7) - np.tanh(-y)), 0.000005)) + 6
    f2 = np.log(np.maximum(np.abs(0.5 * (-x + 3) + np.tanh(-y) + 2), 0.000005)) + 6
    g1 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    g2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    c1, c2 = np.maximum(np.tanh(0.5 * y), 0), np.maximum(np.tanh(-0.5 * y), 0)
    return np.stack([c1 * f1 + c2 * g1, c1 * f2 + c2 * g2], axis=-1)


@pytest.fixture(scope='module')
def front():
    return pareto_front()


def test_losses_are_those_of_the_paper():
    points = np.random.default_rng(0).uniform(-REACH, REACH, (200, 2)).astype(np.float32)
    points = np.concatenate([points, np.array(STARTS, np.float32)])
    expected = by_hand(*points.astype(np.float64).T)
    # Next to a valley, float32 rounds the argument of the logarithm.
    np.testing.assert_allclose(losses_at(points, 1.0), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses_at(points, 0.1), expected * [0.1, 1], rtol=1e-4, atol=1e-4)


def test_losses_are_cut_off_in_the_valley():
    point = jnp.array([2 * jnp.tanh(4.0) - 7, 4.0])
    np.testing.assert_allclose(losses_at(point)[0], np.tanh(2) * (np.log(5e-6) + 6), rtol=1e-6)
    assert np.all(np.isfinite(jax.jit(jax.jacobian(losses))(point)))


def test_front_is_stationary(front):
    first, second = np.moveaxis(np.asarray(jax.jit(jax.vmap(jax.jacobian(losses)))(front.points)), 1, 0)
    difference = first - second
    weight = np.clip(-np.sum(second * difference, axis=-1) / np.sum(difference**2, axis=-1), 0, 1)[:, None]
    least = np.linalg.norm(weight * first + (1 - weight) * second, axis=-1)
    largest = np.maximum(np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1))
    assert np.all(least <= 1e-5 * largest)


def test_no_point_of_a_grid_is_better_than_the_front(front):
    values = losses_on_grid()[1].reshape(-1, 1, 2)
    better = np.all(values < front.losses - 1e-4, axis=-1)
    assert not np.any(better)
    np.testing.assert_allclose(front.points[[0, -1], 0], [7, -7], atol=1e-4)
    assert np.all(np.diff(front.losses[:, 0]) > 0)
    assert np.all(np.diff(front.losses[:, 1]) < 0)


def test_points_are_located_by_the_nearest_place_on_the_front(front):
    distance, place = front.locate(front.points[[0, 30, 50, 100]])
    np.testing.assert_allclose(distance, 0, atol=1e-6)
    np.testing.assert_allclose(place[[0, 2, 3]], [0, 0.5, 1], atol=1e-4)
    high, low = front.losses.max(axis=0), front.losses.min(axis=0)
    distance, place = front.locate(np.array([[[0.0, 0.0], [np.nan, 0.0]]], np.float32))
    assert distance.shape == place.shape == (1, 2)
    corners = (front.losses - low) / (high - low)
    # Both losses are 0 in the origin; the nearest corner is at most half a side from the nearest place.
    np.testing.assert_allclose(distance[0, 0], np.min(np.linalg.norm(corners + low / (high - low), axis=1)), rtol=1e-3)
    assert np.isinf(distance[0, 1])


def test_every_exported_method_runs_or_is_left_out_for_a_reason():
    plumbing = {'Balancer', 'Rows', 'Signals', 'aggregate', 'blend_weights'}
    assert {*toy.methods(), *toy.LEFT_OUT} == {*balancing.__all__} - plumbing
    assert {'equal', 'famo', 'mgda', 'nash_mtl', 'scheduled'} <= {*toy.methods()}


def test_equal_weights_are_adam_on_the_sum():
    optimizer, point = optax.adam(1e-3), jnp.array(STARTS[0])

    @jax.jit
    def step(point, state):
        updates, state = optimizer.update(jax.grad(lambda point: losses(point, 0.5).sum())(point), state)
        return point + updates, state

    state, path = optimizer.init(point), [point]
    for _ in range(5):
        point, state = step(point, state)
        path.append(point)
    found = toy.trajectories(toy.make('equal'), scales=SCALES, steps=STEPS)
    assert found.shape == (2, 5, STEPS + 1, 2)
    np.testing.assert_allclose(found[1, 0, :6], jnp.stack(path), rtol=1e-6)


# FAMO reaches it only with the call after each step.
@pytest.mark.parametrize('method', ['mgda', 'famo'])
def test_methods_that_reach_the_front(front, method):
    outcome = toy.outcome(method, front, scales=SCALES, steps=STEPS)
    assert np.all(outcome.on_front)
    assert np.all((outcome.arrival > 1000) & (outcome.arrival <= STEPS))


def test_equal_weights_fail_from_a_start_of_the_paper(front):
    outcome = toy.outcome('equal', front, scales=SCALES, steps=STEPS)
    assert outcome.on_front[0].tolist() == [True, True, False, True, True]
    assert np.isinf(outcome.arrival[0, 2])


def test_arrival_is_the_step_from_which_a_run_stays():
    distance = np.array([[[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 0]]])
    outcome = toy.Outcome('', np.zeros((1, 4, 5, 2)), np.array([0, 100, 200, 300, 350]), distance, distance)
    assert outcome.on_front.tolist() == [[True, True, False, True]]
    assert outcome.arrival.tolist() == [[300, 0, np.inf, 350]]


def call(monkeypatch, *arguments):
    monkeypatch.setattr('sys.argv', ['toy', *arguments])
    return toy.main()


def test_the_command_writes_a_table_and_a_figure(monkeypatch, tmp_path, capsys):
    out = tmp_path / 'new' / 'toy'
    # One with splits, and one without state.
    code = call(monkeypatch, f'--out={out}', '--methods=modo,equal', f'--steps={STEPS}', '--scales=0.1,0.5')
    assert code == 0, capsys.readouterr().err
    page = (out / 'toy.md').read_text()
    assert page in capsys.readouterr().out
    assert '`python -m experiments.toy --scales=0.1,0.5 --steps=35050 --methods=modo,equal`' in page
    rows = re.findall(r'^\| `(\w+)` \| (\d) of 5 \|', page, flags=re.MULTILINE)
    assert [name for name, _ in rows] == ['modo', 'equal'] * 2
    assert rows[1][1] == '4'
    image = Image.open(io.BytesIO((out / 'toy.png').read_bytes()))
    assert min(image.size) > 200


@pytest.mark.parametrize(
    ('arguments', 'what'),
    [
        (['--methods=equal,mgad'], "no balancing 'mgad'; did you mean 'mgda'?"),
        (['--methods=krum'], 'krum cannot run on the toy problem (for three tasks or more)'),
        (['--methods=aggregate'], 'aggregate is no balancing method'),
        (['--methods='], '--methods is empty'),
        (['--scales=1,zero'], "--scales needs positive numbers such as 0.1,1, got '1,zero'"),
        (['--scales=-1'], '--scales needs positive numbers'),
        (['--steps=0'], 'steps'),
        (['--out='], '--out is missing'),
        (['--out=FILE'], 'is a file; give a directory.'),
        (['--out=FILE/below'], 'nothing can be written to'),
        (['mgda'], "unexpected argument 'mgda'"),
    ],
)
def test_bad_arguments_are_one_sentence(monkeypatch, tmp_path, capsys, arguments, what):
    (tmp_path / 'file').write_text('')
    arguments = [argument.replace('FILE', str(tmp_path / 'file')) for argument in arguments]
    if not any(argument.startswith('--out') for argument in arguments):
        arguments.append(f'--out={tmp_path / "out"}')
    assert call(monkeypatch, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert what in line
