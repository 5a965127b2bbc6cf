"""Tasks: what holds for every kind, perfect answers, and options that do not fit."""

import importlib.util
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmtl_jax import losses, tasks
from mmtl_jax.core.build import build
from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Features, Ragged
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.reporting import draw_picture, draw_values

ROWS, TOKENS, WIDTH = 6, 7, 5
LABELLED = np.array([True, True, False, True, True, False])
MODALITIES = ('image', 'speech', 'text')

SPECS = {
    'classification': {'num_classes': 3, 'class_names': ['ant', 'bee', 'cow'], 'label_smoothing': 0.1, 'top_k': 2},
    'multilabel': {'num_labels': 2, 'class_names': ['red', 'round'], 'reads': ['image', 'text']},
    'regression': {'num_outputs': 2, 'kind': 'huber', 'reads': 'image'},
    'ctc': {'vocabulary': 'ab ', 'decoder': 'beam', 'beam_width': 3, 'reads': ['speech']},
    'contrastive': {'modalities': ['text', 'image', 'speech'], 'width': 4, 'kind': 'siglip'},
    'segmentation': {'num_classes': 3, 'width': 4, 'class_names': ['sky', 'sea', 'sand'], 'size': [4, 6]},
    'detection': {'num_classes': 3, 'width': 4, 'class_names': ['ant', 'bee', 'cow'], 'size': 64},
    'dense_regression': {'of': 'depth', 'width': 4, 'kind': 'huber'},
    'keypoints': {'num_keypoints': 2, 'width': 4, 'class_names': ['nose', 'tail']},
}
BOXES = np.array([[0.1, 0.0, 0.6, 0.5], [0.4, 0.5, 0.9, 1.0]], np.float32)
HAS_BOX = np.array([[1, 1], [1, 0], [1, 1], [0, 0], [1, 1], [0, 0]], bool)
TARGETS = {
    'classification': np.array([0, 1, 2, 2, 1, 0], np.int32),
    'multilabel': np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 0], [1, 1]], np.float32),
    'regression': np.arange(12, dtype=np.float32).reshape(6, 2),
    'ctc': Ragged(
        np.array([[1, 2, 0], [3, 0, 0], [2, 2, 1], [1, 3, 2], [2, 0, 0], [1, 1, 1]], np.int32),
        np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]], bool),
    ),
    'contrastive': {'group': np.array([0, 1, 2, 3, 0, 4], np.int32), 'image': np.array([7, 1, 2, 3, 7, 5], np.int32)},
    'segmentation': np.arange(ROWS * 24, dtype=np.int32).reshape(ROWS, 4, 6) % 4 - 1,
    'detection': {
        'boxes': Ragged(np.tile(BOXES, (ROWS, 1, 1)), HAS_BOX),
        'labels': Ragged(np.tile(np.array([2, 0], np.int32), (ROWS, 1)), HAS_BOX),
        'crowd': Ragged(np.zeros((ROWS, 2), bool), HAS_BOX),
    },
    'dense_regression': np.arange(ROWS * 24, dtype=np.float32).reshape(ROWS, 4, 6) % 5,
    'keypoints': np.tile(np.array([[0.375, 0.25, 2], [0.625, 0.75, 1]], np.float32), (ROWS, 1, 1)),
}
FACTORIES = [
    name
    for name in tasks.__all__
    if inspect.isfunction(getattr(tasks, name))
    and inspect.signature(getattr(tasks, name)).return_annotation is tasks.Task
    and name != 'auxiliary'  # It has neither labels nor scores; see the test of its own.
]


def skip_without_what_it_needs(kind: str) -> None:
    if kind == 'detection':
        pytest.importorskip('pycocotools', reason='average precision is that of pycocotools')


class Case:
    """One task with parameters, inputs and compiled functions, shared by the tests."""

    def __init__(self, kind: str):
        skip_without_what_it_needs(kind)
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
                jax.random.normal(jax.random.key(seed), (ROWS, TOKENS, WIDTH)),
                jnp.ones((ROWS, TOKENS), bool),
                (jax.random.normal(jax.random.key(seed), (ROWS, 4, 6, WIDTH)),),
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
    for leaf in jax.tree.leaves(jax.eval_shape(case.task.scorer.reduce, case.predictions)):
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


DENSE = ('segmentation', 'detection', 'dense_regression', 'keypoints')


def perfect_maps(kind: str):
    """Returns predictions for every cell of a map of 4 x 6 that are right."""
    targets, (y, x) = TARGETS[kind], np.mgrid[0.5:4, 0.5:6]
    if kind == 'segmentation':
        return 30 * jax.nn.one_hot(targets, 3)
    if kind == 'dense_regression':
        return jnp.asarray(targets[..., None])
    if kind == 'keypoints':
        squares = [(y - 4 * row) ** 2 + (x - 6 * column) ** 2 for row, column, _ in targets[0]]
        return jnp.tile(-np.stack(squares, axis=-1)[None] / 2, (ROWS, 1, 1, 1)).astype(jnp.float32)
    found = jax.device_get(jax.jit(lambda boxes: losses.assign(boxes, (4, 6)))(targets['boxes']))
    edges = np.take_along_axis(targets['boxes'].values, found.owner.reshape(ROWS, 24, 1), axis=1).reshape(ROWS, 4, 6, 4)
    middles = np.stack([y / 4, x / 6], axis=-1)[None]
    return {
        'centres': jnp.where(found.centre, 30.0, -30.0),
        'classes': 30 * jax.nn.one_hot(np.array([2, 0])[found.owner], 3),
        'distances': jnp.asarray(np.concatenate([middles - edges[..., :2], edges[..., 2:] - middles], axis=-1)),
    }


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
    if kind in DENSE:
        return perfect_maps(kind)
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
    'segmentation': {'miou': 1, 'pixel_accuracy': 1},
    'detection': {'ap': 1, 'ap50': 1, 'ap75': 1, 'ap_medium': 1, 'objects_ap': 1, 'objects_ap50': 1},
    'dense_regression': {'abs_error': 0, 'rel_error': 0, 'rmse': 0, 'delta1': 1, 'delta3': 1},
    'keypoints': {'pck10': 1, 'pck5': 1},
}  # fmt: skip


def test_perfect_answers_score_perfectly(case):
    predictions, targets = perfect(case.kind), TARGETS[case.kind]
    # What label smoothing costs apart, no loss is left.
    assert np.all(jax.jit(case.task.loss)(predictions, targets) < (2 if case.kind == 'classification' else 1e-3))
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
        'segmentation': ('sky 50%, sea 25%, sand 25%', 'sky 33%, sea 33%, sand 33%'),
        'detection': ('cow (100%), ant (100%)', 'cow, ant'),
        'dense_regression': ('median 2', 'median 2'),
    }
    for kind, words in expected.items():
        skip_without_what_it_needs(kind)
        task = build({'name': kind, **SPECS[kind]}, tasks, task='t')
        assert task.describe(row(jax.jit(task.scorer.reduce)(perfect(kind)), 0), row(TARGETS[kind], 0)) == words


def test_perfect_answers_lie_where_the_truth_does(case):
    if case.kind not in DENSE:
        assert case.task.overlays is None
        return
    output = row(jax.jit(case.task.scorer.reduce)(perfect(case.kind)), 0)
    found, true = case.task.overlays(output, row(TARGETS[case.kind], 0))
    axes = Figure().subplots()
    if case.kind == 'dense_regression':
        known = np.isfinite(true.values)
        assert not known[0, 0], 'no depth is measured there'
        np.testing.assert_allclose(found.values[known], true.values[known])
        draw_values(axes, true)
        return
    draw_picture(axes, np.zeros((8, 12, 3), np.uint8), predicted=[found], expected=[true])
    assert list(found.names) == list(true.names)
    if case.kind == 'segmentation':
        np.testing.assert_array_equal(found.classes[true.classes >= 0], true.classes[true.classes >= 0])
    else:
        # The place of a keypoint is a mean over cells of a map of 4 x 6; that of a box is exact in float32.
        np.testing.assert_allclose(found.places, true.places, atol=1e-6 if case.kind == 'detection' else 0.02)


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


def test_a_box_of_a_class_that_does_not_exist_is_named():
    skip_without_what_it_needs('detection')
    task = build({'name': 'detection', **SPECS['detection']}, tasks, task='objects')
    targets = {**TARGETS['detection'], 'labels': Ragged(np.full((ROWS, 2), 3, np.int32), HAS_BOX)}
    with pytest.raises(ValueError, match=r"task 'objects': a box has the class 3, expected 0 to 2 \(num_classes=3\)"):
        score(task, perfect('detection'), targets)


def test_detection_says_at_once_that_a_package_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='needs the package pycocotools'):
        tasks.detection('t', num_classes=2)


@pytest.mark.parametrize('of', ['values', 'normals'])
def test_numbers_and_normals_of_pixels(of):
    task = tasks.dense_regression('t', of=of, num_outputs=3)
    targets = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    targets[0, 0] = np.nan
    predicted = jnp.asarray(np.where(np.isnan(targets), 1, targets))
    np.testing.assert_allclose(task.loss(predicted, targets), 0, atol=1e-6)  # a cosine is 1 but for rounding
    scores = task.scorer.score([{'values': row} for row in np.asarray(predicted)], list(targets))
    assert scores[task.primary] == pytest.approx(0, abs=0.05)  # in degrees, of rounded cosines
    # Predictions of half the size are brought to that of the targets.
    assert np.all(np.isfinite(task.loss(predicted[:, ::2, ::2], targets)))


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
        ('segmentation', {'num_classes': 1}, "task 't': num_classes must be at least 2, got 1"),
        ('segmentation', {'num_classes': 2, 'class_names': ['a']}, 'class_names must have 2 entries, got 1'),
        ('segmentation', {'num_classes': 2, 'kind': 'iou'}, r"kind must be one of \['cross_entropy', .*, got 'iou'"),
        ('segmentation', {'num_classes': 2, 'primary': 'iou'}, r"primary must be one of \['miou', 'pixel_accuracy'\]"),
        ('detection', {'num_classes': 0}, "task 't': num_classes must be at least 1, got 0"),
        ('detection', {'num_classes': 2, 'max_detections': 0}, 'max_detections must be at least 1, got 0'),
        ('detection', {'num_classes': 2, 'iou_threshold': 1.5}, 'iou_threshold must be between 0 and 1, got 1.5'),
        ('detection', {'num_classes': 2, 'primary': 'ap_small'}, r"primary must be one of .*, got 'ap_small'"),
        ('dense_regression', {'of': 'disparity'}, r"of must be one of \['depth', 'normals', 'values'\]"),
        ('dense_regression', {'kind': 'l1'}, r"kind must be one of \['huber', 'mae', 'mse'\], got 'l1'"),
        ('dense_regression', {'of': 'normals', 'num_outputs': 2}, 'normals have num_outputs=3 for every pixel, got 2'),
        ('dense_regression', {'num_outputs': 0}, 'num_outputs must be at least 1, got 0'),
        ('dense_regression', {'of': 'normals', 'primary': 'rmse'}, r"primary must be one of \['angle_mean'"),
        ('keypoints', {'num_keypoints': 0}, 'num_keypoints must be at least 1, got 0'),
        ('keypoints', {'num_keypoints': 1, 'deviation': 0}, 'deviation must be above 0, got 0'),
    ],
)
def test_options_that_do_not_fit(kind, options, message):
    skip_without_what_it_needs(kind)
    with pytest.raises(ValueError, match=message):
        build({'name': kind, **options}, tasks, task='t')
