"""Norms, cosines and conflicts of a Gramian, against a computation by hand."""

import itertools
import math

import numpy as np
import pytest

from mmtl_jax.training.conflicts import conflict_measures

TASKS = ('caption', 'image', 'speech')
ALL = np.ones(3, bool)
# The squared norms are 25, 4 and 61; the inner products caption-image 6, caption-speech 9 and image-speech -10.
ROWS = np.array([[3.0, 4.0], [2.0, 0.0], [-5.0, 6.0]])


def by_name(gramian, active=ALL, tasks=TASKS):
    """Returns name -> (sum, count)."""
    triples = conflict_measures(gramian, active, tasks)
    found = {name: (total, count) for name, total, count in triples}
    assert len(found) == len(triples)
    assert all(isinstance(value, float) and math.isfinite(value) for pair in found.values() for value in pair)
    return found


def test_the_values_are_those_of_the_formulas():
    speech = math.sqrt(61)
    expected = {
        'caption/gradient_norm': 5.0,
        'image/gradient_norm': 2.0,
        'speech/gradient_norm': speech,
        'gradients/conflicts': 1 / 3,
        'gradients/cosine/caption/image': 6 / 10,
        'gradients/cosine/caption/speech': 9 / (5 * speech),
        'gradients/cosine/image/speech': -10 / (2 * speech),
    }
    found = by_name(ROWS @ ROWS.T)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, rel=1e-14), 1.0), name


def test_many_tasks_agree_with_a_loop_over_the_pairs():
    rows = np.random.default_rng(0).normal(size=(40, 60))
    tasks = [f'task_{index}' for index in range(40)]
    found = by_name(rows @ rows.T, np.ones(40, bool), tasks)
    cosines = {}
    for a, b in itertools.combinations(range(40), 2):
        cosine = rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
        cosines[f'gradients/cosine/task_{a}/task_{b}'] = (pytest.approx(cosine, rel=1e-10, abs=1e-15), 1.0)
    assert {name: value for name, value in found.items() if '/cosine/' in name} == cosines
    share = np.mean([found[name][0] < 0 for name in cosines])
    assert found['gradients/conflicts'] == (pytest.approx(share, rel=1e-14), 1.0)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_scale_changes_the_norms_only(scale, dtype):
    gramian = (ROWS @ ROWS.T * scale).astype(dtype)
    plain, scaled = by_name(ROWS @ ROWS.T), by_name(gramian)
    rtol = 1e-6 if dtype == np.float32 else 1e-14  # the Gramian's own rounding
    for name, (value, count) in plain.items():
        value *= math.sqrt(scale) if name.endswith('gradient_norm') else 1.0
        assert scaled[name] == (pytest.approx(value, rel=rtol), count), name


def test_rows_of_very_different_size_have_their_cosine():
    rows = ROWS * np.array([[1e-150], [1e150], [1.0]])
    found = by_name(rows @ rows.T)
    assert found['gradients/cosine/caption/image'] == (pytest.approx(0.6, rel=1e-14), 1.0)
    assert found['gradients/cosine/image/speech'] == (pytest.approx(-5 / math.sqrt(61), rel=1e-14), 1.0)


def test_equal_and_opposite_rows_do_not_pass_one():
    row = np.array([0.1, 0.2, 0.3], np.float32)
    rows = np.stack([row, row / 3, -row / 7])
    found = by_name(rows @ rows.T)
    assert found['gradients/cosine/caption/image'][0] == pytest.approx(1.0, rel=1e-6)
    assert found['gradients/cosine/image/speech'][0] == pytest.approx(-1.0, rel=1e-6)
    assert all(abs(value) <= 1 for name, (value, _) in found.items() if '/cosine/' in name)
    gramian = np.array([[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]])
    assert by_name(gramian, np.ones(2, bool), ('a', 'b'))['gradients/cosine/a/b'] == (1.0, 1.0)


@pytest.mark.parametrize('content', [0.0, -7.0, math.nan, math.inf])
def test_whatever_an_inactive_task_holds_does_not_count(content):
    gramian = ROWS @ ROWS.T
    gramian[1], gramian[:, 1] = content, content
    found = by_name(gramian, np.array([True, False, True]))
    absent = {'image/gradient_norm', 'gradients/cosine/caption/image', 'gradients/cosine/image/speech'}
    assert {name for name, pair in found.items() if pair == (0.0, 0.0)} == absent
    assert found['gradients/conflicts'] == (0.0, 1.0), 'caption and speech agree'


def test_a_zero_gradient_has_a_norm_and_no_cosine():
    found = by_name(np.diag([25.0, 0.0, 0.0]))
    assert found['image/gradient_norm'] == found['speech/gradient_norm'] == (0.0, 1.0)
    assert all(pair == (0.0, 0.0) for name, pair in found.items() if name.startswith('gradients/'))


def test_an_overflow_of_an_active_task_is_left_out():
    gramian = ROWS @ ROWS.T
    gramian[1, 1] = math.inf
    found = by_name(gramian)
    assert found['image/gradient_norm'] == found['gradients/cosine/caption/image'] == (0.0, 0.0)
    assert found['gradients/cosine/caption/speech'][1] == found['gradients/conflicts'][1] == 1.0


@pytest.mark.parametrize('active', [ALL & False, np.array([False, True, False])], ids=['none', 'one'])
def test_without_a_pair_there_are_no_conflicts(active):
    found = by_name(ROWS @ ROWS.T, active)
    assert found['gradients/conflicts'] == (0.0, 0.0)
    assert sum(count for _, count in found.values()) == active.sum()


def test_one_task_has_its_norm():
    assert by_name(np.array([[4.0]]), np.ones(1, bool), ('a',)) == {
        'a/gradient_norm': (2.0, 1.0),
        'gradients/conflicts': (0.0, 0.0),
    }


def test_orthogonal_gradients_do_not_conflict():
    assert by_name(np.eye(3))['gradients/conflicts'] == (0.0, 1.0)


@pytest.mark.parametrize(('gramian', 'active'), [(np.eye(2), ALL), (np.eye(3), ALL[:2]), (np.ones(3), ALL)])
def test_wrong_shapes_are_named(gramian, active):
    with pytest.raises(ValueError, match=r'for 3 tasks the Gramian is \[3, 3\] and active \[3\], got the shapes'):
        conflict_measures(gramian, active, TASKS)
