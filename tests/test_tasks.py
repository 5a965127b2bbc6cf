"""Tasks: what holds for every kind, perfect answers, and options that do not fit."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import tasks
from mmtl_jax.core.build import build
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Features, Ragged
from mmtl_jax.losses import hide_unlabelled

ROWS, TOKENS, WIDTH = 6, 7, 5
LABELLED = np.array([True, True, False, True, True, False])
MODALITIES = ('image', 'speech', 'text')

SPECS = {
    'classification': {'num_classes': 3, 'class_names': ['ant', 'bee', 'cow'], 'label_smoothing': 0.1, 'top_k': 2},
    'multilabel': {'num_labels': 2, 'class_names': ['red', 'round'], 'reads': ['image', 'text']},
    'regression': {'num_outputs': 2, 'kind': 'huber', 'reads': 'image'},
    'ctc': {'vocabulary': 'ab ', 'decoder': 'beam', 'beam_width': 3, 'reads': ['speech']},
    'contrastive': {'modalities': ['text', 'image', 'speech'], 'width': 4, 'kind': 'siglip'},
}
TARGETS = {
    'classification': np.array([0, 1, 2, 2, 1, 0], np.int32),
    'multilabel': np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 0], [1, 1]], np.float32),
    'regression': np.arange(12, dtype=np.float32).reshape(6, 2),
    'ctc': Ragged(
        np.array([[1, 2, 0], [3, 0, 0], [2, 2, 1], [1, 3, 2], [2, 0, 0], [1, 1, 1]], np.int32),
        np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]], bool),
    ),
    'contrastive': {'group': np.array([0, 1, 2, 3, 0, 4], np.int32), 'image': np.array([7, 1, 2, 3, 7, 5], np.int32)},
}
FACTORIES = [
    name
    for name in tasks.__all__
    if inspect.isfunction(getattr(tasks, name))
    and inspect.signature(getattr(tasks, name)).return_annotation is tasks.Task
    and name != 'auxiliary'  # It has neither labels nor scores; see the test of its own.
]


class Case:
    """One task with parameters, inputs and compiled functions, shared by the tests."""

    def __init__(self, kind: str):
        self.kind = kind
        self.task = build({'name': kind, **SPECS[kind]}, tasks, task='question')
        self.inputs = self._inputs()
        init = jax.jit(lambda read: self.task.head.init(jax.random.key(0), read, train=False))
        self.variables = init(self.inputs)
        self.predictions = jax.jit(lambda variables: self.task.head.apply(variables, self.inputs, train=False))(
            self.variables
        )
        self.step = jax.jit(jax.value_and_grad(self._objective))
        self.metrics = jax.jit(self.task.metrics)

    def _inputs(self):
        def one(seed: int) -> Features:
            return Features(
                jax.random.normal(jax.random.key(seed), (ROWS, TOKENS, WIDTH)), jnp.ones((ROWS, TOKENS), bool)
            )

        modalities = {modality: one(seed) for seed, modality in enumerate(MODALITIES)}
        reads = self.task.reads
        return one(9) if isinstance(reads, str) else {modality: modalities[modality] for modality in reads}

    def _objective(self, variables, targets, labelled):
        """Returns the mean loss of the labelled rows, as the training step takes it."""
        predictions = self.task.head.apply(variables, self.inputs, train=False)
        rows = self.task.loss(predictions, hide_unlabelled(targets, labelled))
        assert rows.shape == (ROWS,)
        return jnp.sum(jnp.where(labelled, rows, 0)) / jnp.maximum(jnp.sum(labelled), 1)


@pytest.fixture(scope='module', params=FACTORIES)
def case(request) -> Case:
    return Case(request.param)


def row(tree, index: int):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def score(task: tasks.Task, predictions, targets) -> dict[str, float]:
    """Returns the corpus scores of the labelled rows, as the evaluation takes them."""
    outputs = jax.jit(task.scorer.reduce)(predictions)
    rows = np.flatnonzero(LABELLED)
    return task.scorer.score([row(outputs, i) for i in rows], [row(targets, i) for i in rows])


def poisoned(targets):
    """Returns targets with rubbish in the unlabelled rows."""

    def poison(leaf):
        rubbish = np.nan if np.issubdtype(leaf.dtype, np.floating) else 1 if leaf.dtype == bool else 3
        return np.where(LABELLED.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, rubbish).astype(leaf.dtype)

    return jax.tree.map(poison, targets)


def test_every_factory_has_a_case():
    assert set(FACTORIES) == set(SPECS) == set(TARGETS)


def test_loss_and_gradient_are_finite(case):
    value, gradient = case.step(case.variables, TARGETS[case.kind], LABELLED)
    assert value > 0
    assert all_finite(gradient)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_unlabelled_rows_change_nothing_to_the_bit(case):
    clean = case.step(case.variables, TARGETS[case.kind], LABELLED)
    dirty = case.step(case.variables, poisoned(TARGETS[case.kind]), LABELLED)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    weights = LABELLED.astype(np.float32)
    clean = case.metrics(case.predictions, TARGETS[case.kind], weights)
    dirty = case.metrics(case.predictions, poisoned(TARGETS[case.kind]), weights)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_without_any_label_there_is_no_loss_and_no_gradient(case):
    value, gradient = case.step(case.variables, TARGETS[case.kind], np.zeros(ROWS, bool))
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert case.task.scorer.score([], []) == {}


def test_metrics_and_scores_hold_the_primary(case):
    pairs = case.metrics(case.predictions, TARGETS[case.kind], LABELLED.astype(np.float32))
    for total, count in pairs.values():
        assert total.shape == count.shape == ()
        assert count == LABELLED.sum()
    scores = score(case.task, case.predictions, TARGETS[case.kind])
    assert all(isinstance(value, float) and np.isfinite(value) for value in scores.values())
    assert not set(pairs) & set(scores)
    assert case.task.primary in set(pairs) | set(scores)


def test_reduced_outputs_have_one_row_per_example(case):
    for leaf in jax.tree.leaves(case.task.scorer.reduce(case.predictions)):
        assert leaf.shape[0] == ROWS


def test_describe_gives_words(case):
    if case.task.describe is None:
        assert case.kind == 'contrastive'
        return
    output = row(case.task.scorer.reduce(case.predictions), 0)
    words = case.task.describe(output, row(TARGETS[case.kind], 0))
    assert len(words) == 2
    assert all(isinstance(word, str) for word in words)


def test_reads_is_one_name_or_a_tuple():
    assert Case('classification').task.reads == 'fused'
    assert build({'name': 'ctc', **SPECS['ctc']}, tasks, task='t').reads == 'speech'
    assert build({'name': 'multilabel', **SPECS['multilabel']}, tasks, task='t').reads == ('image', 'text')
    assert build({'name': 'contrastive', **SPECS['contrastive']}, tasks, task='t').reads == ('text', 'image', 'speech')


def perfect(kind: str):
    """Returns predictions that answer every question right."""
    targets = TARGETS[kind]
    if kind == 'classification':
        return 20 * jax.nn.one_hot(targets, 3)
    if kind == 'multilabel':
        return jnp.asarray(40 * targets - 20)
    if kind == 'regression':
        return jnp.asarray(targets)
    if kind == 'ctc':
        # A blank after each symbol keeps repeats apart.
        path = np.stack([np.where(targets.mask, targets.values, 0), np.zeros((ROWS, 3), int)], axis=-1).reshape(ROWS, 6)
        return {'logits': 20 * jax.nn.one_hot(path, 4), 'mask': jnp.ones((ROWS, 6), bool)}
    vectors = jax.nn.one_hot(targets['group'], 8)
    return {
        'embeddings': dict.fromkeys(MODALITIES, vectors),
        'valid': dict.fromkeys(MODALITIES, jnp.ones(ROWS, bool)),
        'scale': jnp.float32(50.0),
        'bias': jnp.float32(-25.0),
    }


PERFECT = {
    'classification': {'accuracy': 1, 'top2': 1, 'macro_f1': 1, 'micro_f1': 1, 'ece': 0, 'nll': 0, 'brier': 0},
    'multilabel': {
        'accuracy': 1, 'exact_match': 1, 'macro_f1': 1, 'micro_f1': 1, 'roc_auc': 1, 'average_precision': 1,
        'ece': 0, 'nll': 0, 'brier': 0,
    },
    'regression': {'mae': 0, 'mse': 0, 'r2': 1},
    'ctc': {'infeasible': 0, 'cer': 0, 'wer': 0},
    'contrastive': {'r1': 1, 'image_to_text_r1': 1, 'speech_to_image_r5': 1, 'text_to_speech_median_rank': 1},
}  # fmt: skip


def test_perfect_answers_score_perfectly(case):
    predictions, targets = perfect(case.kind), TARGETS[case.kind]
    # What label smoothing costs apart, no loss is left.
    assert np.all(case.task.loss(predictions, targets) < (2 if case.kind == 'classification' else 1e-3))
    pairs = case.metrics(predictions, targets, LABELLED.astype(np.float32))
    got = {name: total / count for name, (total, count) in pairs.items()} | score(case.task, predictions, targets)
    for name, value in PERFECT[case.kind].items():
        assert got[name] == pytest.approx(value, abs=1e-6), name  # a logit of 20 leaves 4e-9 to the others
    assert case.task.higher_is_better == (PERFECT[case.kind].get(case.task.primary, 1) == 1)


def test_words_of_perfect_answers():
    expected = {
        'classification': ('ant (100%)', 'ant'),
        'multilabel': ('round', 'round'),
        'regression': ('0, 1', '0, 1'),
        'ctc': ('ab', 'ab'),
    }
    for kind, words in expected.items():
        task = build({'name': kind, **SPECS[kind]}, tasks, task='t')
        assert task.describe(row(task.scorer.reduce(perfect(kind)), 0), row(TARGETS[kind], 0)) == words


def test_an_auxiliary_task_hands_on_what_the_fusion_gives():
    task = build({'name': 'auxiliary', 'objective': 'kl'}, tasks, task='latent')
    assert (task.name, task.reads, task.primary, task.scorer) == ('latent', 'fused/kl', '', None)
    assert build({'name': 'auxiliary'}, tasks, task='cca').reads == 'fused/cca', 'the name of the task is the default'
    losses = jnp.arange(ROWS, dtype=jnp.float32)
    assert not task.head.init(jax.random.key(0), losses, train=True)
    predictions = task.head.apply({}, losses, train=True)
    np.testing.assert_array_equal(task.loss(predictions, np.zeros(ROWS, np.float32)), losses)
    assert task.metrics(predictions, None, LABELLED) == {}


def test_ctc_without_vocabulary_scores_ids():
    task = tasks.ctc('t', vocab_size=4)
    scores = score(task, perfect('ctc'), TARGETS['ctc'])
    assert scores == {'cer': 0}
    assert task.describe(row(task.scorer.reduce(perfect('ctc')), 2), row(TARGETS['ctc'], 2)) == ('2 2 1', '2 2 1')
    shorter = Ragged(TARGETS['ctc'].values, TARGETS['ctc'].mask & (np.arange(3) < 2))
    # Of the labelled rows, row 3 has one id more than its reference; the references have six in all.
    assert score(task, perfect('ctc'), shorter) == {'cer': pytest.approx(1 / 6)}


def test_ctc_takes_its_size_from_the_vocabulary():
    assert tasks.ctc('t', vocabulary=['a', 'b']).head.vocab_size == 3
    assert tasks.ctc('t', vocabulary=['a', 'b'], vocab_size=3).head.vocab_size == 3


def test_kinds_of_contrastive_start_as_in_their_papers():
    clip, siglip = (tasks.contrastive('t', modalities=('image', 'text'), kind=kind).head for kind in ('clip', 'siglip'))
    assert (clip.init_temperature, clip.init_bias) == (0.07, None)
    assert (siglip.init_temperature, siglip.init_bias) == (0.1, -10.0)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        ('classification', {'num_classes': 1}, "task 't': num_classes must be at least 2, got 1"),
        ('classification', {'num_classes': 3, 'class_names': ['a', 'b']}, 'class_names must have 3 entries, got 2'),
        ('classification', {'num_classes': 3, 'top_k': 4}, 'top_k must be between 1 and 3, got 4'),
        ('classification', {'num_classes': 3, 'label_smoothing': 1.0}, 'label_smoothing must be at least 0'),
        ('classification', {'num_classes': 3, 'primary': 'f1'}, "primary must be one of .*'macro_f1'.*, got 'f1'"),
        ('multilabel', {'num_labels': 0}, 'num_labels must be at least 1, got 0'),
        ('multilabel', {'num_labels': 2, 'class_names': ['a']}, 'class_names must have 2 entries, got 1'),
        ('regression', {'num_outputs': 0}, 'num_outputs must be at least 1, got 0'),
        ('regression', {'kind': 'l1'}, r"kind must be one of \['huber', 'mae', 'mse'\], got 'l1'"),
        ('ctc', {}, 'ctc needs vocab_size or a vocabulary'),
        ('ctc', {'vocab_size': 1}, 'vocab_size must be at least 2, got 1'),
        ('ctc', {'vocab_size': 3, 'vocabulary': 'abc'}, 'vocab_size 3 does not fit .* 3 symbols and the blank make 4'),
        ('ctc', {'vocab_size': 3, 'decoder': 'viterbi'}, r"decoder must be one of \['beam', 'greedy'\]"),
        ('ctc', {'vocab_size': 3, 'per': 'word'}, r"per must be one of \['sequence', 'symbol'\]"),
        ('ctc', {'vocab_size': 3, 'beam_width': 0}, 'beam_width must be at least 1'),
        ('ctc', {'vocab_size': 3, 'reads': ['image', 'speech']}, 'ctc reads one sequence'),
        ('ctc', {'vocab_size': 3, 'primary': 'wer'}, r"primary must be one of \['cer'\], got 'wer'"),
        (
            'contrastive',
            {'modalities': ['image']},
            r"two or more different modalities, none called 'group', got \('image'",
        ),
        ('contrastive', {'modalities': 'image'}, 'two or more different modalities'),
        ('contrastive', {'modalities': ['image', 'image']}, 'two or more different modalities'),
        (
            'contrastive',
            {'modalities': ['image', 'text'], 'kind': 'triplet'},
            r"kind must be one of \['clip', 'siglip'\]",
        ),
        ('contrastive', {'modalities': ['image', 'text'], 'init_temperature': 0.0}, 'init_temperature must be above 0'),
        ('contrastive', {'modalities': ['image', 'text'], 'primary': 'image_to_speech_r5'}, 'primary must be one of'),
    ],
)
def test_options_that_do_not_fit(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build({'name': kind, **options}, tasks, task='t')
