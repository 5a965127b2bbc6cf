"""Fusions of decisions: the published formulas in plain numpy, and the model behind such a fusion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders, fusion, heads, sharing, tasks
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Batch
from mmtl_jax.fusion.decision import DISTRIBUTIONS
from mmtl_jax.model import MultiModalMultiTask
from tests import quick
from tests.nn.plain import sigmoid, softmax

NAMES = ('DecisionAverage', 'DecisionWeighted', 'ProductOfExperts', 'Stacking')
# Row 0 has all three modalities, rows 1 to 3 one each, row 4 two, row 5 none.
PRESENT = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], bool)
ALONE = {1: 0, 2: 1, 3: 2}
LABELS = 4
# float32 against double precision, on numbers below ten.
CLOSE = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def predictions(fill: float = 0.0) -> np.ndarray:
    """Returns `[B, M, K]` with `fill` where a modality is absent."""
    drawn = np.random.default_rng(0).normal(scale=2.0, size=(*PRESENT.shape, LABELS))
    return np.where(PRESENT[..., None], drawn, fill).astype(np.float32)


class Case:
    """One decision on one kind of prediction, with drawn parameters and compiled functions."""

    def __init__(self, name: str, distribution: str):
        self.decision = getattr(fusion, name)(width=4).decision(distribution)
        noise = np.random.default_rng(1)
        variables = quick.parameters(self.decision, predictions(), PRESENT)
        # Prior, precisions and weights start at 0 and must not stay there, or half of the formula is not seen.
        self.variables = jax.tree.map(lambda leaf: leaf + noise.normal(size=leaf.shape).astype(np.float32), variables)
        self.parameters = jax.tree.map(np.asarray, self.variables).get('params', {})
        self.apply = quick.jit(lambda values: self.decision.apply(self.variables, values, PRESENT))

        def total(variables, values):
            joint = self.decision.apply(variables, values, PRESENT)
            return jnp.sum(jnp.sin(joint)), joint

        self.step = quick.jit(jax.grad(total, argnums=(0, 1), has_aux=True))


case_of = functools.cache(Case)


def in_numpy(name: str, distribution: str, p: dict, row: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Returns what the decision says of one row `[M, K]`: probabilities, or numbers; written from the formulas."""
    row = row.astype(np.float64)
    probabilities = {'categorical': softmax, 'bernoulli': sigmoid, 'normal': lambda x: x}[distribution]
    if name == 'ProductOfExperts':
        n = has.sum()
        if distribution == 'normal':
            prior, experts = np.exp(p['prior_log_precision']), np.exp(p['log_precision'])
            total = prior + experts[has].sum(axis=0)
            return (((prior + experts[has]) * row[has]).sum(axis=0) - (n - 1) * prior * p['prior']) / total
        if distribution == 'categorical':
            product = np.prod(softmax(row[has]), axis=0) / softmax(p['prior']) ** (n - 1.0)
            return product / product.sum()
        on = np.prod(sigmoid(row[has]), axis=0) / sigmoid(p['prior']) ** (n - 1.0)
        off = np.prod(sigmoid(-row[has]), axis=0) / sigmoid(-p['prior']) ** (n - 1.0)
        return on / (on + off)
    if name == 'Stacking':
        voices = np.where(has[:, None], probabilities(row), 0)
        return probabilities(np.concatenate([voices.ravel(), has]) @ p['meta']['kernel'] + p['meta']['bias'])
    weights = np.exp(p['weights'][has]) if name == 'DecisionWeighted' else np.ones(has.sum())
    return (weights[:, None] / weights.sum() * probabilities(row[has])).sum(axis=0)


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
@pytest.mark.parametrize('name', NAMES)
def test_the_formula(name, distribution):
    case = case_of(name, distribution)
    joint = np.asarray(case.apply(predictions()), np.float64)
    if distribution != 'normal':
        joint = softmax(joint) if distribution == 'categorical' else sigmoid(joint)
    for row in range(5):
        CLOSE(joint[row], in_numpy(name, distribution, case.parameters, predictions()[row], PRESENT[row]))
    if name in ('DecisionAverage', 'DecisionWeighted'):
        CLOSE(joint[5], {'categorical': 1 / LABELS, 'bernoulli': 0.5, 'normal': 0.0}[distribution])
    if name == 'ProductOfExperts':
        CLOSE(joint[5], in_numpy(name, distribution, case.parameters, predictions()[5], PRESENT[5]))


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
@pytest.mark.parametrize('name', NAMES[:3])
def test_a_modality_alone_decides(name, distribution):
    joint = case_of(name, distribution).apply(predictions())
    for row, modality in ALONE.items():
        expected = predictions()[row, modality]
        if distribution == 'categorical':
            CLOSE(softmax(joint[row]), softmax(expected))
        else:
            CLOSE(joint[row], expected)


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
@pytest.mark.parametrize('name', NAMES)
def test_absent_modalities_have_no_vote_and_no_gradient(name, distribution):
    case = case_of(name, distribution)
    (by_variables, by_predictions), joint = case.step(case.variables, predictions())
    assert all_finite((by_variables, by_predictions, joint))
    assert not [path for path, leaf in flatten_with_paths(by_variables).items() if not np.any(leaf)]
    np.testing.assert_array_equal(np.any(by_predictions, axis=-1), PRESENT)
    spoilt = case.step(case.variables, predictions(np.nan))
    jax.tree.map(np.testing.assert_array_equal, ((by_variables, by_predictions), joint), spoilt)


def test_a_class_that_all_modalities_rule_out_keeps_a_finite_loss_and_a_gradient():
    certain = np.where(np.arange(LABELS) == 0, 200.0, 0.0).astype(np.float32) * np.ones((*PRESENT.shape, 1), np.float32)
    average = case_of('DecisionAverage', 'categorical')
    loss = quick.jit(
        jax.value_and_grad(lambda values: -jax.nn.log_softmax(average.decision.apply({}, values, PRESENT))[0, 1])
    )
    value, gradient = loss(certain)
    assert value == pytest.approx(200, rel=1e-4)
    assert np.abs(gradient[0]).max() > 0.1


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_stacking_starts_as_the_mean_vote(distribution):
    decision = fusion.Stacking(width=4).decision(distribution)
    agreed = np.where(np.arange(LABELS) == 1, 50.0, -50.0).astype(np.float32) * np.ones((*PRESENT.shape, 1), np.float32)
    joint, _ = quick.jit(lambda: decision.init_with_output(jax.random.key(0), agreed, PRESENT))()
    if distribution == 'normal':
        CLOSE(joint[0], agreed[0].mean(axis=0))
    elif distribution == 'categorical':
        CLOSE(softmax(np.asarray(joint[0], np.float64)), np.where(np.arange(LABELS) == 1, 0.99, 0.01 / (LABELS - 1)))
    else:
        CLOSE(sigmoid(np.asarray(joint[0], np.float64)), np.where(np.arange(LABELS) == 1, 0.99, 0.01))
        CLOSE(joint[5], np.zeros(LABELS), err_msg='no modality, no opinion')


def test_stacking_can_leave_the_heads_as_they_are():
    decision = fusion.Stacking(width=4, hidden=(5,), stop_gradient=True).decision('categorical')
    variables = quick.parameters(decision, predictions(), PRESENT)
    gradient = quick.jit(jax.grad(lambda v, x: jnp.sum(jnp.sin(decision.apply(v, x, PRESENT))), argnums=(0, 1)))
    by_variables, by_predictions = gradient(variables, predictions())
    assert not np.any(by_predictions)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_variables))


ROWS = 4
HAS = {'left': [1, 1, 0, 0], 'right': [1, 0, 1, 0]}
TASKS = {
    'kind': tasks.classification('kind', num_classes=3),
    'marks': tasks.multilabel('marks', num_labels=2),
    'size': tasks.regression('size', num_outputs=2),
    'match': tasks.contrastive('match', modalities=('left', 'right'), width=3),
    'words': tasks.ctc('words', vocab_size=4, reads='left'),
}


def make_model(name: str, **reads) -> MultiModalMultiTask:
    reads = {task.name: task.reads for task in TASKS.values()} | reads
    return MultiModalMultiTask(
        encoders={'left': encoders.TabularMLP(width=5, depth=1), 'right': encoders.TabularMLP(width=3, depth=1)},
        fusion=getattr(fusion, name)(width=4),
        sharing=sharing.Split(tasks=tuple(task for task, read in reads.items() if read == 'fused'), width=4),
        heads={name: task.head for name, task in TASKS.items()},
        reads=reads,
    )


def make_batch(fill: float = 0.0) -> Batch:
    present = {modality: np.array(rows, bool) for modality, rows in HAS.items()}
    drawn = np.random.default_rng(0).normal(size=(2, ROWS, 3))
    inputs = {
        modality: np.where(present[modality][:, None], drawn[index], fill).astype(np.float32)
        for index, modality in enumerate(HAS)
    }
    return Batch(inputs, present, {}, {}, np.ones(ROWS, bool))


@pytest.fixture(
    scope='module', params=[pytest.param(n, marks=pytest.mark.slow) for n in NAMES[::2]] + list(NAMES[1::2])
)
def answered(request):
    """Returns the name, the variables, and a function of the batch that gives gradients and predictions."""
    model = make_model(request.param)
    variables = quick.parameters(model, make_batch(), train=False)

    def objective(variables, batch):
        joint = model.apply(variables, batch, train=False)
        return sum(jnp.sum(jnp.sin(joint[task])) for task in ('kind', 'marks', 'size')), joint

    return request.param, variables, quick.jit(jax.grad(objective, has_aux=True))


def test_every_task_answers_from_every_modality_with_heads_of_its_own(answered):
    name, variables, step = answered
    own = variables['params']['heads']
    for task in ('kind', 'marks', 'size'):
        assert set(own[task]) == {'left', 'right'} | ({'decision'} if name != 'DecisionAverage' else set())
    assert 'left' not in own['words'], 'a task that reads a single modality has one head'
    _, joint = step(variables, make_batch())
    shapes = {task: joint[task].shape for task in ('kind', 'marks', 'size')}
    assert shapes == {'kind': (ROWS, 3), 'marks': (ROWS, 2), 'size': (ROWS, 2)}
    assert all_finite(joint)


def test_what_stands_in_place_of_an_absent_modality_changes_nothing_to_the_bit(answered):
    _, variables, step = answered
    clean, spoilt = step(variables, make_batch()), step(variables, make_batch(np.nan))
    assert all_finite(clean)
    jax.tree.map(np.testing.assert_array_equal, clean, spoilt)


def test_the_head_of_an_absent_modality_gets_no_gradient(answered):
    _, variables, step = answered
    batch = make_batch()
    without = batch.replace(present={'left': np.array(HAS['left'], bool), 'right': np.zeros(ROWS, bool)})
    by_heads = step(variables, without)[0]['params']['heads']
    for task in ('kind', 'marks', 'size'):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_heads[task]['right'])), task
        assert all(np.any(leaf) for leaf in jax.tree.leaves(by_heads[task]['left'])), task


@pytest.mark.parametrize('name', NAMES)
def test_sequences_cannot_be_averaged(name):
    model = make_model(name, words='fused')
    with pytest.raises(
        ValueError, match=rf"task 'words': {name} joins one prediction per modality, but what CTC predi"
    ):
        jax.eval_shape(lambda: model.init(jax.random.key(0), make_batch(), train=False))


def test_a_modality_cannot_be_called_what_joins_decisions():
    model = make_model('DecisionAverage')
    wrong = model.clone(encoders={**model.encoders, 'decision': encoders.TabularMLP(width=3, depth=1)})
    with pytest.raises(ValueError, match="a modality cannot be called 'decision' where decisions are fused; rename it"):
        jax.eval_shape(lambda: wrong.init(jax.random.key(0), make_batch(), train=False))


def test_heads_say_what_they_predict():
    said = {name: getattr(getattr(heads, name), 'distribution', None) for name in heads.__all__}
    assert {kind for kind in said.values() if kind} == set(DISTRIBUTIONS)
    assert said['CTC'] is said['Contrastive'] is None
