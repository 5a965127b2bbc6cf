"""The batch plan: every row, no row twice, and nothing but the seed decides."""

import numpy as np
import pytest

from mmtl_jax.data.plan import EvalPlan, TrainPlan, shares

BUCKETS = np.array([0] * 9 + [1] * 13 + [3] * 5, np.int32)


def epoch(plan, number):
    first = number * plan.batches_per_epoch
    return [plan[index] for index in range(first, first + plan.batches_per_epoch)]


def test_an_epoch_holds_no_row_twice_and_all_rows_come_in_time():
    plan = TrainPlan([BUCKETS], batch_size=4, seed=0)
    assert plan.batches_per_epoch == 27 // 4
    seen = np.zeros(27, int)
    for number in range(60):
        rows = np.concatenate([batch.rows for batch in epoch(plan, number)])
        assert len(np.unique(rows)) == len(rows) == 24
        seen[rows] += 1
        assert all((batch.passes == number).all() for batch in epoch(plan, number))
    # Three of 27 rows are left out at random: 53 visits on average, with a deviation of 2.4.
    assert seen.min() > 43


def test_rows_fit_the_bucket_of_their_batch():
    plan = TrainPlan([BUCKETS], batch_size=4, seed=1)
    used = set()
    for number in range(5):
        for batch in epoch(plan, number):
            assert (BUCKETS[batch.rows] <= batch.bucket).all()
            assert batch.bucket in BUCKETS[batch.rows]
            used.add(batch.bucket)
    assert used == {0, 1, 3}


def test_a_bucket_smaller_than_a_batch_is_not_lost():
    buckets = np.array([0] * 30 + [1] * 2)
    plan = TrainPlan([buckets], batch_size=8, seed=0)
    rows = np.concatenate([batch.rows for batch in epoch(plan, 0)])
    assert sorted(rows) == list(range(32))


def test_the_plan_is_a_pure_function_of_seed_and_index():
    plan, again, other = (TrainPlan([BUCKETS], batch_size=4, seed=seed) for seed in (5, 5, 6))
    order = np.random.default_rng(0).permutation(40)
    batches = {index: again[int(index)] for index in order}
    for index in range(40):
        np.testing.assert_array_equal(plan[index].rows, batches[index].rows)
        assert plan[index].bucket == batches[index].bucket
    assert any((plan[index].rows != other[index].rows).any() for index in range(6))
    assert not np.array_equal(plan[0].rows, plan[plan.batches_per_epoch].rows)


def test_a_mixture_keeps_its_weights_in_every_epoch():
    plan = TrainPlan([np.zeros(30, int), np.ones(10, int)], batch_size=4, seed=0, weights=[1, 3])
    assert plan.batches_per_epoch == 10
    visits = np.zeros(40, int)
    for number in range(8):
        rows = np.concatenate([batch.rows for batch in epoch(plan, number)])
        passes = np.concatenate([batch.passes for batch in epoch(plan, number)])
        assert (rows >= 30).sum() == 30
        # A row may come again within an epoch, but as another visit with draws of its own.
        assert len(set(zip(rows.tolist(), passes.tolist(), strict=True))) == 40
        np.add.at(visits, rows, 1)
    # Eight epochs are 80 draws of 30 rows and 240 of 10: each row within one visit of its share.
    assert set(visits[:30]) <= {2, 3}
    assert set(visits[30:]) == {24}


def test_shares_use_the_largest_remainders():
    assert shares(10, [1, 1, 1], 3) == [4, 3, 3]
    assert shares(100, [0.5, 0.25, 0.25], 3) == [50, 25, 25]
    for weights in ([1.0], [1, 0, 1], [1, np.nan, 1]):
        with pytest.raises(ValueError, match='weights must be 3 positive numbers, one for each source'):
            shares(10, weights, 3)


def test_evaluation_sees_every_row_once():
    plan = EvalPlan(BUCKETS, batch_size=4)
    batches = [plan[index] for index in range(len(plan))]
    rows = np.concatenate([batch.rows for batch in batches])
    assert len(rows) % 4 == 0
    assert sorted(rows[rows >= 0]) == list(range(27))
    for batch in batches:
        assert (BUCKETS[batch.rows[batch.rows >= 0]] == batch.bucket).all()
    assert [batch.bucket for batch in batches] == [0] * 3 + [1] * 4 + [3] * 2


def test_too_few_rows():
    with pytest.raises(ValueError, match='training has 27 rows, fewer than the batch size 28'):
        TrainPlan([BUCKETS], batch_size=28, seed=0)
