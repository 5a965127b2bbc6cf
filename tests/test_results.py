"""What a run's outputs become for figures and report."""

import types

import numpy as np
import pytest

from mmtl_jax import data, tasks
from mmtl_jax.results import fusion_views, scene, summarise
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.inspection import Inspected


def evaluated(name, outputs, targets):
    return Evaluated(
        {f'{name}/loss': 0.5, 'other/loss': 1.0}, list(range(len(outputs))), {name: outputs}, {name: targets}
    )


def test_classes_have_a_confusion_matrix_and_a_reliability_over_the_labelled_rows():
    outputs = [{'label': label, 'probabilities': np.eye(3)[label]} for label in (0, 1, 1, 2)]
    found = evaluated('kind', outputs, [np.int32(0), np.int32(2), None, np.int32(2)])
    named = summarise(tasks.classification('kind', num_classes=3, class_names='abc'), found)
    assert named.scores == {'loss': 0.5}
    assert named.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert named.reliability.ece == pytest.approx(1 / 3)
    bare = summarise(tasks.classification('kind', num_classes=3), found)
    assert bare.confusion is None
    assert bare.reliability.counts.sum() == 3


def test_labels_count_each_on_its_own():
    outputs = [{'probabilities': np.array([0.9, 0.1])}, {'probabilities': np.array([0.8, 0.2])}]
    found = evaluated('labels', outputs, [np.array([1.0, 0.0]), np.array([1.0, 1.0])])
    assert summarise(tasks.multilabel('labels', num_labels=2), found).reliability.counts.sum() == 4


@pytest.mark.parametrize(
    ('outputs', 'targets'),
    [
        ([{'value': np.zeros(1)}], [np.zeros(1)]),
        ([{'probabilities': np.zeros((2, 3))}], [np.int32(0)]),
        ([{'probabilities': np.zeros(2)}], [np.zeros(3)]),
        ([{'probabilities': np.zeros(2)}], [None]),
        ([np.zeros(2)], [np.int32(0)]),
        ([], []),
    ],
)
def test_other_outputs_have_neither(outputs, targets):
    found = summarise(tasks.regression('own'), evaluated('own', outputs, targets))
    assert (found.confusion, found.reliability) == (None, None)


def test_answers_in_the_picture_go_with_the_picture_that_the_model_gets():
    examples = [{'photo': np.full((4, 6, 3), 9, np.uint8), 'mask': np.zeros((4, 6), np.uint8)}] * 3
    preprocess = data.build_preprocess(
        inputs={'image': 'photo'},
        targets={'ground': {'key': 'mask', 'kind': 'mask'}},
        steps=[{'name': 'resize_with_padding', 'layers': {'image': 'photo', 'masks': ('mask',)}, 'size': (8, 8)}],
    )
    rows = data.prepare(data.SequenceSource(examples), preprocess)
    ground = tasks.segmentation('ground', num_classes=2, reads='fused')
    inputs = types.SimpleNamespace(rows={'test': rows}.get)
    outputs = [{'classes': np.full((8, 8), label)} for label in range(2)]
    found = Evaluated({}, [2, 0], {'ground': outputs}, {'ground': [np.zeros((8, 8)), None]})
    seen = scene(types.SimpleNamespace(tasks=[ground], inputs=inputs), 'test', found, 0)
    assert seen.image.shape == (8, 8, 3)
    assert [mask.classes.sum() for mask in seen.answers['ground']] == [0, 0]
    more = {**found.targets, 'size': [1.0, 1.0]}
    for asked, place in ((ground, 1), (tasks.regression('size'), 0)):
        experiment = types.SimpleNamespace(tasks=[asked], inputs=inputs)
        assert scene(experiment, 'test', Evaluated({}, [2, 0], found.outputs, more), place) is None


def test_fused_features_are_shown_by_what_has_one_class_a_row():
    names = {'num_classes': 2, 'class_names': 'ab', 'reads': 'fused'}
    task_list = [
        tasks.classification('kind', **names),
        tasks.classification('alone', **{**names, 'reads': 'image'}),
        tasks.detection('items', **names),
        tasks.segmentation('ground', **names),
    ]
    targets = {
        'kind': [np.int32(0), np.int32(1), None, np.int32(1), np.int32(0)],
        'alone': [np.int32(0)] * 5,
        'items': [{'boxes': np.zeros((1, 4)), 'labels': np.zeros(1, np.int32)}] * 5,
        'ground': [np.zeros((4, 4), np.int32)] * 5,
    }
    found = Evaluated({}, list(range(5)), {}, targets)
    experiment = types.SimpleNamespace(tasks=task_list, results=types.SimpleNamespace(num_features=5))
    inspected = Inspected(np.arange(5), np.eye(5, dtype=np.float32), {'image': np.ones(5, bool)}, {})
    shown = fusion_views(experiment, 'test', found, inspected)['features']
    assert shown.groups == {'kind': ['a', 'b', None, 'b', 'a'], 'modalities': ['image'] * 5}
