"""What a run's outputs become for figures and report."""

import numpy as np
import pytest

from mmtl_jax import tasks
from mmtl_jax.results import summarise
from mmtl_jax.training.evaluation import Evaluated


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
