"""Tasks whose answer is a class for every pixel."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.overlays import Mask
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.heads.pyramid import resized
from mmtl_jax.tasks.base import Scorer, Task, at_least, called, choice, class_names_of, primary_metric, reading

SIZE_OF_BYTE = 256


def segmentation(
    task: str,
    *,
    num_classes: int,
    reads: str | Sequence[str] = 'image',
    size: int | Sequence[int] | None = None,
    width: int = 64,
    level: int = 0,
    dropout_rate: float = 0.0,
    kind: str = 'cross_entropy_dice',
    class_names: Sequence[str] = (),
    primary: str = 'miou',
) -> Task:
    """Returns a task with a class for every pixel; targets `[B, H, W]` ints, of which -1 and 255 are ignored.

    Logits of another size than the target are resized to it for the loss, bilinearly. Scores take the predicted classes
    as they are, by the nearest pixel; with `size` as that of the targets both are the same.

    Args:
      task: its name.
      num_classes: number of classes, background included.
      reads: the modality of the picture; 'fused' where the fusion hands on maps.
      size: of the predicted mask, see `heads.Segmentation`.
      width: of the head.
      level: of the head.
      dropout_rate: in the head.
      kind: of the loss: 'cross_entropy', 'dice', 'focal' or 'cross_entropy_dice', the sum of two.
      class_names: one per class, for reports.
      primary: 'miou' or 'pixel_accuracy'.
    """
    at_least(task, 'num_classes', num_classes, 2)
    names = class_names_of(task, class_names, num_classes)
    kinds = {
        'cross_entropy': losses.pixel_cross_entropy,
        'dice': losses.dice,
        'focal': losses.pixel_focal,
        'cross_entropy_dice': lambda logits, labels: (
            losses.pixel_cross_entropy(logits, labels) + losses.dice(logits, labels)
        ),
    }
    loss = choice(task, 'kind', kind, kinds)

    def reduce(logits: Array) -> dict[str, Array]:
        # Maps of a whole split stay on the host.
        return {'classes': jnp.argmax(logits, axis=-1).astype(jnp.uint8 if num_classes <= SIZE_OF_BYTE else jnp.int32)}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        confusion = np.zeros((num_classes, num_classes), np.int64)
        for output, target in zip(outputs, targets, strict=True):
            confusion += metrics.pixel_confusion(target, output['classes'], num_classes)
        return metrics.segmentation(confusion)

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        target = np.asarray(target)
        known = target[(target >= 0) & (target < num_classes)]
        return tuple(_shares(names, np.ravel(classes)) for classes in (output['classes'], known))

    return Task(
        name=task,
        head=heads.Segmentation(num_classes, as_size(size), width, level, dropout_rate),
        loss=lambda logits, labels: loss(resized(logits, labels.shape[1:3]), labels),
        metrics=lambda logits, labels, weights: {},
        scorer=Scorer(reduce, score),
        **primary_metric(task, primary, ['miou', 'pixel_accuracy']),
        reads=reading(reads),
        class_names=names,
        describe=describe,
        overlays=lambda output, target: (Mask(output['classes'], names), Mask(target, names)),
    )


def as_size(size: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """Returns a size from a config, where lists stand for tuples."""
    return size if size is None or isinstance(size, int) else tuple(size)


def _shares(names: tuple[str, ...], classes: np.ndarray) -> str:
    """Returns the classes by the share of pixels that they have, the largest first."""
    numbers, counts = np.unique(classes, return_counts=True)
    order = np.argsort(-counts, kind='stable')
    return ', '.join(f'{called(names, numbers[i])} {counts[i] / classes.size:.0%}' for i in order) or 'nothing'
