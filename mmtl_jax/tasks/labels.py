"""Tasks whose answer is a class, or any number of labels."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.tasks.base import Scorer, Task, at_least, called, class_names_of, primary_metric, reading


def classification(
    task: str,
    *,
    num_classes: int,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    label_smoothing: float = 0.0,
    top_k: int | None = None,
    class_names: Sequence[str] = (),
    primary: str = 'accuracy',
) -> Task:
    """Returns a task with one class out of several; targets `[B]` int.

    Args:
      task: its name.
      num_classes: number of classes, at least 2.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      label_smoothing: weight of the uniform distribution in the target.
      top_k: also measures how often the class is among the `top_k` highest; None to leave it out.
      class_names: one per class, for reports.
      primary: 'accuracy', `top{k}`, 'macro_f1' or 'micro_f1'.
    """
    at_least(task, 'num_classes', num_classes, 2)
    names = class_names_of(task, class_names, num_classes)
    if top_k is not None and not 1 <= top_k <= num_classes:
        raise ValueError(f'task {task!r}: top_k must be between 1 and {num_classes}, got {top_k}.')
    if not 0 <= label_smoothing < 1:
        raise ValueError(f'task {task!r}: label_smoothing must be at least 0 and below 1, got {label_smoothing}.')
    known = ['accuracy', 'macro_f1', 'micro_f1'] + ([] if top_k is None else [f'top{top_k}'])

    def reduce(logits: Array) -> dict[str, Array]:
        label = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return {'label': label, 'probabilities': jax.nn.softmax(logits.astype(jnp.float32))}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        labels, predicted = np.array(targets), np.array([output['label'] for output in outputs])
        probabilities = np.array([output['probabilities'] for output in outputs])
        return metrics.f1(labels, predicted) | metrics.calibration(labels, probabilities)

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        label = int(output['label'])
        return f'{called(names, label)} ({output["probabilities"][label]:.0%})', called(names, int(target))

    return Task(
        name=task,
        head=heads.Classification(num_classes, tuple(hidden), dropout_rate),
        loss=partial(losses.cross_entropy, label_smoothing=label_smoothing),
        metrics=partial(metrics.classification, top_k=top_k),
        scorer=Scorer(reduce, score),
        **primary_metric(task, primary, known),
        reads=reading(reads),
        class_names=names,
        describe=describe,
    )


def multilabel(
    task: str,
    *,
    num_labels: int,
    reads: str | Sequence[str] = 'fused',
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    class_names: Sequence[str] = (),
    primary: str = 'macro_f1',
) -> Task:
    """Returns a task with any number of labels per row; targets `[B, num_labels]` of 0 and 1.

    Args:
      task: its name.
      num_labels: number of labels.
      reads: 'fused', a modality, or several.
      hidden: sizes of the head's hidden layers.
      dropout_rate: in the head.
      class_names: one per label, for reports.
      primary: 'macro_f1', 'micro_f1', 'average_precision', 'roc_auc', 'accuracy' (share of labels that are right) or
        'exact_match'.
    """
    at_least(task, 'num_labels', num_labels, 1)
    known = ['macro_f1', 'micro_f1', 'average_precision', 'roc_auc', 'accuracy', 'exact_match']
    names = class_names_of(task, class_names, num_labels)

    def reduce(logits: Array) -> dict[str, Array]:
        return {'probabilities': jax.nn.sigmoid(logits.astype(jnp.float32))}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        truth = (np.array(targets) > 0.5).astype(np.int32)
        probabilities = np.array([output['probabilities'] for output in outputs])
        scores = metrics.f1(truth, (probabilities > 0.5).astype(np.int32)) | metrics.ranking(truth, probabilities)
        return scores | metrics.calibration(truth, probabilities)

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        return tuple(
            ', '.join(called(names, label) for label in np.flatnonzero(np.asarray(values) > 0.5)) or 'none'
            for values in (output['probabilities'], target)
        )

    return Task(
        name=task,
        head=heads.MultiLabel(num_labels, tuple(hidden), dropout_rate),
        loss=losses.binary_cross_entropy,
        metrics=metrics.multilabel,
        scorer=Scorer(reduce, score),
        **primary_metric(task, primary, known),
        reads=reading(reads),
        class_names=names,
        describe=describe,
    )
