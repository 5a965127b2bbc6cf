"""Evaluation: a split in padded batches is the same as the split in one, whatever stands in the padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmtl_jax import balancing
from mmtl_jax.training.compilation import CompiledByShape
from mmtl_jax.training.evaluation import evaluate, evaluate_subsets, make_eval_step
from tests.training.tiny import TASKS, make_batch, make_model, make_state

ROWS = 21
MODEL = make_model()


@pytest.fixture(scope='module')
def variables():
    return make_state(MODEL, optax.sgd(0.1), balancing.equal()).inference


@pytest.fixture(scope='module')
def eval_step():
    return jax.jit(make_eval_step(MODEL, TASKS))


@pytest.fixture(scope='module')
def whole():
    """A split in one batch, in which every third row has no class."""
    batch = make_batch(3, rows=ROWS)
    return batch.replace(labelled={**batch.labelled, 'kind': jnp.arange(ROWS) % 3 > 0})


def in_batches(whole, size, filling=0.0):
    """Yields the rows of a batch in smaller ones, the last padded with `filling`."""
    for start in range(0, ROWS, size):
        indices = np.arange(start, start + size)
        real = indices < ROWS

        def part(leaf, indices=indices, real=real):
            rows = np.array(leaf)[np.minimum(indices, ROWS - 1)]
            rows[~real] = filling if rows.dtype.kind == 'f' else 1
            return jnp.asarray(rows)

        yield np.where(real, indices, -1), jax.tree.map(part, whole).replace(real=jnp.asarray(real))


def test_a_split_in_batches_is_the_split_in_one(eval_step, variables, whole):
    expected = evaluate(eval_step, variables, [(np.arange(ROWS), whole)], TASKS)
    found = evaluate(eval_step, variables, in_batches(whole, 8), TASKS)
    assert found.rows == list(range(ROWS))
    # Sums over 8 rows and over 21 are float32 sums in another order.
    assert found.values == pytest.approx(expected.values, rel=1e-5)
    assert {'kind/loss', 'kind/accuracy', 'size/loss', 'size/mae'} <= set(found.values)
    for task in ('kind', 'size'):
        assert [target is None for target in found.targets[task]] == [t is None for t in expected.targets[task]]
    assert sum(target is None for target in found.targets['kind']) == 7


def test_values_are_those_of_numpy(eval_step, variables, whole):
    found = evaluate(eval_step, variables, in_batches(whole, 8), TASKS)
    predictions = jax.device_get(jax.jit(MODEL.apply, static_argnames='train')(variables, whole, train=False))
    labelled = np.asarray(whole.labelled['kind'])
    right = (predictions['kind'].argmax(-1) == np.asarray(whole.targets['kind']))[labelled]
    assert found.values['kind/accuracy'] == pytest.approx(right.mean())
    error = np.abs(predictions['size'] - np.asarray(whole.targets['size']))
    assert found.values['size/mae'] == pytest.approx(error.mean(), rel=1e-5)


def test_what_stands_in_the_padding_counts_nothing(eval_step, variables, whole):
    zeros, nans = (evaluate(eval_step, variables, in_batches(whole, 8, filling), TASKS) for filling in (0.0, np.nan))
    assert zeros.values == nans.values
    assert zeros.rows == nans.rows


def test_a_task_without_a_labelled_row_has_no_values(eval_step, variables, whole):
    unlabelled = whole.replace(labelled={**whole.labelled, 'size': jnp.zeros(ROWS, bool)})
    found = evaluate(eval_step, variables, in_batches(unlabelled, 8), TASKS)
    assert {name.split('/')[0] for name in found.values} == {'kind'}
    assert found.targets['size'] == [None] * ROWS


def test_a_task_without_a_scorer_has_sums_alone(variables, whole):
    bare = tuple(dataclasses.replace(task, scorer=None) for task in TASKS)
    step = jax.jit(make_eval_step(MODEL, bare))
    found = evaluate(step, variables, in_batches(whole, 8), bare)
    assert found.outputs == {}
    assert {'kind/loss', 'kind/accuracy', 'size/loss'} <= set(found.values)
    assert 'kind/macro_f1' not in found.values


SUBSETS = [('table', 'text'), ('table',), ('text',), ()]


def test_subsets_are_the_masks_and_one_compile_serves_them_all(variables, whole):
    step = CompiledByShape(make_eval_step(MODEL, TASKS))
    found = evaluate_subsets(step, variables, in_batches(whole, 8), TASKS, SUBSETS)
    assert step.count == 1
    has_text = np.asarray(whole.present['text'])
    for subset, evaluated in found.items():
        present = {name: mask if name in subset else jnp.zeros_like(mask) for name, mask in whole.present.items()}
        alone = evaluate(step, variables, in_batches(whole.replace(present=present), 8), TASKS)
        assert evaluated.values == alone.values
        assert evaluated.rows == list(range(ROWS))
        assert evaluated.blank == {('text',): np.sum(~has_text), (): ROWS}.get(subset, 0)
    assert 0 < np.sum(~has_text) < ROWS
    assert len({evaluated.values['kind/loss'] for evaluated in found.values()}) == len(SUBSETS)
    assert all(np.isfinite(list(evaluated.values.values())).all() for evaluated in found.values())


def test_what_a_subset_leaves_out_changes_nothing(eval_step, variables, whole):
    inputs = {**whole.inputs, 'table': jnp.full_like(whole.inputs['table'], jnp.nan)}
    found = [
        evaluate_subsets(eval_step, variables, in_batches(batch, 8), TASKS, [('text',)])[('text',)].values
        for batch in (whole, whole.replace(inputs=inputs))
    ]
    assert found[0] == found[1]
