"""Sampling by groups: how often each comes, that nothing but the seed decides, and what cannot be sampled by."""

import json

import jax
import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data.plan import TrainPlan

BUCKETS = np.arange(60) % 3
GROUPS = np.array([0] * 45 + [1] * 12 + [2] * 3)


def epochs(plan, count):
    for number in range(count):
        first = number * plan.batches_per_epoch
        yield [plan[index] for index in range(first, first + plan.batches_per_epoch)]


@pytest.mark.parametrize(('power', 'counts'), [(0.0, [45, 12, 3]), (0.5, [33.81, 17.46, 8.73]), (1.0, [20, 20, 20])])
def test_a_group_comes_as_often_as_its_power_says(power, counts):
    plan = TrainPlan([BUCKETS], batch_size=5, seed=0, groups=[GROUPS], power=power)
    assert plan.batches_per_epoch == 12
    found = []
    for batches in epochs(plan, 200):
        rows = np.concatenate([batch.rows for batch in batches])
        passes = np.concatenate([batch.passes for batch in batches])
        found.append(np.bincount(GROUPS[rows], minlength=3))
        assert len(set(zip(rows.tolist(), passes.tolist(), strict=True))) == 60, 'every visit has its own draws'
        assert all((BUCKETS[batch.rows] <= batch.bucket).all() for batch in batches)
    assert np.abs(np.array(found) - counts).max() < 1 + 0.01
    # The mean of 200 roundings by chance, each off by less than one.
    np.testing.assert_allclose(np.mean(found, axis=0), counts, atol=0.15)


def test_all_rows_of_a_group_come_alike():
    plan = TrainPlan([BUCKETS], batch_size=5, seed=0, groups=[GROUPS], power=0.5)
    visits = np.zeros(60, int)
    for batches in epochs(plan, 100):
        np.add.at(visits, np.concatenate([batch.rows for batch in batches]), 1)
    for group in range(3):
        of_group = visits[group == GROUPS]
        # A pass leaves out a row by chance here and there: five standard deviations of a binomial count.
        assert np.ptp(of_group) <= 10 * np.sqrt(of_group.mean() * 0.05) + 2


def test_a_group_of_fewer_draws_than_epochs_still_comes():
    plan = TrainPlan([np.zeros(50, int), np.zeros(50, int)], batch_size=10, seed=0, weights=[99, 1],
                     groups=[np.zeros(50, int), np.arange(50) // 49], power=0.0)  # fmt: skip
    rows = np.concatenate([batch.rows for batches in epochs(plan, 400) for batch in batches])
    assert np.mean(rows >= 50) == 0.01, 'each source keeps its share'
    # One draw in 50 of 400: 8 in the mean, and by chance it is not 0.
    assert 1 <= (rows == 99).sum() <= 20


def test_the_plan_is_a_pure_function_of_seed_and_index():
    plans = [TrainPlan([BUCKETS], batch_size=4, seed=seed, groups=[GROUPS], power=1.0) for seed in (5, 5, 6)]
    later = {int(index): plans[1][int(index)].rows for index in np.random.default_rng(0).permutation(40)}
    for index in range(40):
        np.testing.assert_array_equal(plans[0][index].rows, later[index])
    assert any((plans[0][index].rows != plans[2][index].rows).any() for index in range(6))


def loader(prepared, sampling):
    return data.train_loader(
        prepared.rows,
        batch_size=8,
        seed=3,
        layout=prepared.layout,
        sampling=sampling,
        num_threads=0,
    )


def test_a_resumed_loader_goes_on_to_the_bit_and_refuses_another_sampling(prepared):
    sampling = data.Sampling(by='shape', power=0.5)
    whole = [next(batches) for batches in [loader(prepared, sampling)] for _ in range(15)]
    first = loader(prepared, sampling)
    for _ in range(9):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    second = loader(prepared, sampling)
    second.set_state(state)
    for expected in whole[9:]:
        jax.tree.map(np.testing.assert_array_equal, next(second), expected)
    for other in (None, data.Sampling(by='shape', power=1.0), data.Sampling(by='modalities', power=0.5)):
        with pytest.raises(ValueError, match='belongs to other data: power and checksum of the sampled groups was'):
            loader(prepared, other).set_state(state)


def test_rows_are_grouped_by_label_key_or_pattern(prepared):
    examples = [prepared.source[row] for row in range(len(prepared.rows))]

    def same(groups, names):
        assert len(groups) == len(names)
        assert len({*zip(groups.tolist(), names, strict=True)}) == len({*names}) == len({*groups.tolist()})

    same(data.Sampling(by='shape').groups(prepared.rows), [int(example['shape']) for example in examples])
    same(data.Sampling(by='id').groups(prepared.rows), [example['id'] for example in examples])
    patterns = []
    for row in range(len(examples)):
        values = prepared.preprocess.visit(prepared.rows.row(row), None)
        patterns.append(tuple(path for path in values if path.startswith('inputs/') and values[path] is not None))
    assert len({*patterns}) > 3
    same(data.Sampling(by='modalities').groups(prepared.rows), patterns)


@pytest.mark.parametrize(
    ('sampling', 'message'),
    [
        ({'by': 'shapes'}, r"data.sampling.by is 'shapes', which is no task and no key of .*; did you mean 'shape'\?"),
        ({'by': 'amount'}, "data.sampling.by is 'amount', which holds float.*; choose a key of whole numbers or text"),
        ({'by': 'image'}, "data.sampling.by is 'image', which holds uint8 of the shape"),
        ({'by': 'shape', 'power': 1.5}, 'data.sampling.power must be from 0 to 1, got 1.5'),
    ],
)
def test_what_cannot_be_sampled_by(sampling, message, prepared):
    with pytest.raises(ValueError, match=message):
        data.Sampling(**sampling).check(prepared.rows)
