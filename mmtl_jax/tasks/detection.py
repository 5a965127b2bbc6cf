"""Tasks whose answer is a list of boxes with classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.overlays import Boxes
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.heads.detection_decoding import cell_boxes, decode_detections
from mmtl_jax.tasks.base import Scorer, Task, at_least, called, class_names_of, primary_metric, reading

# What reports name and draw: boxes that are objects at least this surely.
SURE = 0.3
SCORES = ('ap', 'ap50', 'ap75')
BY_SIZE = ('ap_small', 'ap_medium', 'ap_large')


def detection(
    task: str,
    *,
    num_classes: int,
    reads: str | Sequence[str] = 'image',
    width: int = 64,
    depth: int = 1,
    level: int = 0,
    dropout_rate: float = 0.0,
    box_weight: float = 2.0,
    class_weight: float = 1.0,
    max_detections: int = 100,
    iou_threshold: float = 0.5,
    size: int | Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    primary: str = 'ap50',
) -> Task:
    """Returns a task of boxes; targets `boxes` (ragged `[B, N, 4]`), `labels` and maybe `crowd` (ragged `[B, N]`).

    Boxes are ymin, xmin, ymax, xmax as shares of the sides. Scores with the prefix `objects_` leave the classes out.

    Args:
      task: its name.
      num_classes: number of classes; there is no background among them.
      reads: the modality of the picture; 'fused' where the fusion hands on maps.
      width: of the head.
      depth: of the head.
      level: of the head.
      dropout_rate: in the head.
      box_weight: of the boxes in the loss.
      class_weight: of the classes in the loss.
      max_detections: the most per picture.
      iou_threshold: of two boxes of one class that overlap by more, the better stays.
      size: height and width of the pictures in pixels, or one number for both, for scores by the size of the objects;
        None for none.
      class_names: one per class, for reports.
      primary: 'ap50', 'ap', 'ap75', one of these as in 'objects_ap50', or, with `size`, 'ap_small', 'ap_medium',
        'ap_large'.

    Raises:
      ValueError: a number out of range, an unknown score, or pycocotools is missing.
    """
    for name, value in (('num_classes', num_classes), ('depth', depth), ('max_detections', max_detections)):
        at_least(task, name, value, 1)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f'task {task!r}: iou_threshold must be between 0 and 1, got {iou_threshold}.')
    metrics.require_pycocotools()
    names = class_names_of(task, class_names, num_classes)
    pixels = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
    known = [*SCORES, *(f'objects_{name}' for name in SCORES), *(() if size is None else BY_SIZE)]

    def loss(predictions: PyTree, targets: Mapping[str, PyTree]) -> Array:
        return losses.detection(
            predictions,
            cell_boxes(predictions['distances']),
            targets['boxes'],
            targets['labels'],
            targets.get('crowd'),
            box_weight=box_weight,
            class_weight=class_weight,
        )

    def reduce(predictions: PyTree) -> dict[str, PyTree]:
        options = {'max_detections': max_detections, 'iou_threshold': iou_threshold}
        objects = decode_detections(predictions, class_agnostic=True, **options)
        return {**decode_detections(predictions, **options), 'objects': objects}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        if not targets:
            return {}
        wanted = [_real(target) for target in targets]
        for target in wanted:
            _check_labels(task, target['labels'], num_classes)
        scores = metrics.mean_average_precision(outputs, wanted, size=pixels)
        objects = [output['objects'] for output in outputs]
        agnostic = metrics.mean_average_precision(objects, wanted, class_agnostic=True)
        return scores | {f'objects_{name}': value for name, value in agnostic.items()}

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        found = _found(output)
        classes = zip(found['labels'], found['scores'], strict=True)
        predicted = ', '.join(f'{called(names, label)} ({score:.0%})' for label, score in classes)
        expected = ', '.join(called(names, label) for label in _real(target)['labels'])
        return predicted or 'nothing', expected or 'nothing'

    def overlays(output: PyTree, target: PyTree) -> tuple[Boxes, Boxes]:
        found, true = _found(output), _real(target)
        return (
            Boxes(found['boxes'], [called(names, label) for label in found['labels']], found['scores']),
            Boxes(true['boxes'], [called(names, label) for label in true['labels']]),
        )

    return Task(
        name=task,
        head=heads.Detection(num_classes, width, depth, level, dropout_rate),
        loss=loss,
        metrics=lambda predictions, targets, weights: {},
        scorer=Scorer(reduce, score),
        **primary_metric(task, primary, known),
        reads=reading(reads),
        class_names=names,
        describe=describe,
        overlays=overlays,
    )


def _found(output: PyTree) -> dict[str, np.ndarray]:
    """Returns the boxes of one picture that are surely objects, with the most probable class of each and its score.

    A model that does not know the classes well yet is sure of hardly any, however well it finds the objects.
    """
    sure, real = output['objects']['scores'] >= SURE, output['scores'] >= 0
    boxes = output['objects']['boxes'][sure]
    # With and without classes the boxes of a cell are the same; of several the first has the highest score.
    distances = np.abs(boxes[:, None] - output['boxes'][real][None]).max(axis=-1)
    nearest = distances.argmin(axis=1) if real.any() else np.zeros(0, int)
    return {'boxes': boxes, **{name: output[name][real][nearest] for name in ('labels', 'scores')}}


def _real(target: Mapping[str, PyTree]) -> dict[str, np.ndarray]:
    """Returns the boxes of one picture, with their labels and crowds, without padding."""
    real = np.asarray(target['boxes'].mask, bool)
    return {name: np.asarray(ragged.values)[real] for name, ragged in target.items()}


def _check_labels(task: str, labels: np.ndarray, num_classes: int) -> None:
    """Raises a `ValueError` for a class out of range."""
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(
            f'task {task!r}: a box has the class {wrong}, expected 0 to {num_classes - 1} (num_classes={num_classes}).'
        )
