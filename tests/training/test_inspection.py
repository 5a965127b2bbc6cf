"""What fusions tell of themselves: the mean weights of the modalities in an evaluation."""

import jax
import numpy as np
import optax
import pytest

from mmtl_jax import balancing, fusion
from mmtl_jax.training.evaluation import evaluate, make_eval_step
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
