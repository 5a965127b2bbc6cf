"""What fusions tell of themselves: the mean weights of the modalities in an evaluation."""

import jax
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, fusion
from mmtl_jax.training.evaluation import evaluate, make_eval_step
from mmtl_jax.training.inspection import inspect, make_look, mean_attention
from tests.training.tiny import ROWS, TASKS, make_batch, make_model, make_state


@pytest.mark.parametrize(
    ('joined', 'names'),
    [
        (fusion.Weighted(width=8), ['table', 'text']),
        (fusion.Hierarchical(width=8), ['table', 'table+text', 'text']),
        (fusion.Concat(width=8), []),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else '',
)
def test_an_evaluation_has_the_mean_weight_of_each_modality(joined, names):
    model = make_model().clone(fusion=joined)
    state = make_state(model, optax.sgd(0.1), balancing.equal())
    batch = make_batch(1).replace(real=np.arange(ROWS) < 6)
    indices = np.where(np.asarray(batch.real), np.arange(ROWS), -1)
    values = evaluate(jax.jit(make_eval_step(model, TASKS)), state.inference, [(indices, batch)], TASKS).values
    found = {name: value for name, value in values.items() if name.startswith('modalities/')}
    assert set(found) == {f'modalities/{name}/weight' for name in names}
    if names:
        assert sum(found.values()) == pytest.approx(1.0, rel=1e-5)
    if names == ['table', 'text']:
        # At first all modalities that a row has count alike.
        has = np.asarray(batch.present['text'])[:6]
        assert found['modalities/text/weight'] == pytest.approx(0.5 * has.mean(), rel=1e-5)


def test_attention_is_the_mean_over_layers_heads_and_queries():
    layer = {'a': {'a': np.ones((2, 3, 4, 5)), 'b': np.arange(2 * 3 * 4.0).reshape(2, 3, 4, 1)}}
    found = mean_attention([layer, {'a': {'a': np.zeros((2, 3, 4, 5))}}])
    np.testing.assert_array_equal(found['a']['a'], np.full((2, 5), 0.5))
    np.testing.assert_array_equal(found['a']['b'], [[5.5], [17.5]])


def test_a_split_is_inspected_row_by_row():
    model = make_model().clone(fusion=fusion.Early(width=8, depth=1, num_heads=2))
    state = make_state(model, optax.sgd(0.1), balancing.equal())
    batch = make_batch(1).replace(real=np.arange(ROWS) < 6)
    indices = np.where(np.asarray(batch.real), 10 + np.arange(ROWS), -1)
    found = inspect(jax.jit(make_look(model)), state.inference, [(indices, batch)] * 2, chosen=(10, 12, 99))
    assert found.rows.tolist() == [*range(10, 16)] * 2
    assert found.fused.shape == (12, 8)
    np.testing.assert_array_equal(found.present['text'], np.tile(np.asarray(batch.present['text'])[:6], 2))
    z = model.apply(state.inference, batch, train=False, method='features')['fused']
    np.testing.assert_allclose(found.fused[:6], z.tokens[:6, 0], rtol=1e-4, atol=1e-6)
    assert set(found.attention) == {10, 12}
    for row, weights in found.attention.items():
        here = {'table', 'text'} if batch.present['text'][row - 10] else {'table'}
        assert set(weights) == here
        for by_key in weights.values():
            assert set(by_key) == here
            assert sum(tokens.sum() for tokens in by_key.values()) == pytest.approx(1.0, rel=1e-4)
