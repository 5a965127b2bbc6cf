"""Checkpoints: everything comes back to the bit, the best and the latest stay, and a half-written one never counts."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.training.checkpoint import Checkpoints
from mmtl_jax.training.state import TrainState


def make_state(step=0, width=3, average=True):
    """Returns a state with something in every field."""
    params = {'heads': {'kind': {'kernel': jnp.arange(width) + step / 7}}, 'fusion': {'bias': jnp.full(2, 1 / 3)}}
    return TrainState(
        step=jnp.int32(step),
        params=params,
        variables={'batch_stats': {'mean': jnp.full(2, 0.1 * step)}},
        optimizer=({'mu': params}, jnp.int32(step)),
        balancer={'log_variance': jnp.full(2, -0.3)},
        average=params if average else None,
        key=jax.random.fold_in(jax.random.key(5), step),
        bad_run=jnp.array([0, step, 1], jnp.int32),
    )


def abstract(state):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def save_all(folder: pathlib.Path, values: dict[int, float | None], **options) -> list[int]:
    """Saves a checkpoint per step, and returns the steps that stay."""
    with Checkpoints(folder, **options) as checkpoints:
        for step, value in values.items():
            checkpoints.save(step, make_state(step), {}, value)
    with Checkpoints(folder, **options) as checkpoints:
        return checkpoints.steps


@pytest.mark.parametrize('average', [True, False])
def test_everything_comes_back_to_the_bit(tmp_path, average):
    state, host = make_state(4, average=average), {'best_value': 0.1 + 0.2, 'data': {'position': 7}, 'pending': {}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, state, host, 0.5)
    with Checkpoints(tmp_path) as checkpoints:
        found, found_host = checkpoints.load(checkpoints.latest, abstract(state))
    assert found_host == host
    assert jax.random.normal(found.key) == jax.random.normal(state.key)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(found.replace(key=0)), jax.tree.leaves(state.replace(key=0)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_there_is_none_at_first(tmp_path):
    with Checkpoints(tmp_path / 'new') as checkpoints:
        assert (checkpoints.latest, checkpoints.steps) == (None, [])


@pytest.mark.parametrize(('options', 'stay'), [
    ({}, [4, 10]),
    ({'keep': 2}, [4, 8, 10]),
    ({'higher_is_better': False}, [2, 10]),
], ids=['best and latest', 'more of the latest', 'lower is better'])  # fmt: skip
def test_the_best_survives_beside_the_latest(tmp_path, options, stay):
    # Only an evaluation has a value; a checkpoint that a signal asked for has none and is nobody's best.
    values = {2: 0.1, 4: 0.9, 6: 0.5, 7: None, 8: 0.5, 10: None}
    assert save_all(tmp_path, values, **options) == stay


def test_a_latest_that_is_the_best_is_kept_once(tmp_path):
    assert save_all(tmp_path, {2: 0.1, 4: 0.2, 6: 0.3}) == [6]


def test_a_save_that_was_killed_does_not_count(tmp_path):
    save_all(tmp_path, {2: 0.5})
    (tmp_path / '4.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 2
        checkpoints.save(4, make_state(4), {}, None)
        assert checkpoints.steps == [2, 4]


def test_a_step_may_be_saved_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, make_state(2), {'n': 1}, None)
        checkpoints.save(2, make_state(2), {'n': 2}, None)
        assert checkpoints.load(2, abstract(make_state()))[1] == {'n': 2}


def test_a_state_of_another_shape_is_refused_by_name(tmp_path):
    save_all(tmp_path, {2: None})
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=r'of another model: average/heads/kind/kernel has the shape \(3,\) there'):
            checkpoints.load(2, abstract(make_state(width=4)))
        with pytest.raises(ValueError, match=r'of another model: average/fusion/bias .* and \(absent\) in this config'):
            checkpoints.load(2, abstract(make_state(average=False)))
