"""Tasks whose answer is a number, or several, for every pixel."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.overlays import Values
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.heads.pyramid import resized
from mmtl_jax.tasks.base import Scorer, Task, at_least, choice, primary_metric, reading
from mmtl_jax.tasks.segmentation import as_size

# What the numbers are -> the scores, the primary first.
KNOWN = {
    'values': ('abs_error', 'rmse'),
    'depth': ('abs_error', 'rel_error', 'rmse', 'delta1', 'delta2', 'delta3'),
    'normals': ('angle_mean', 'angle_median', 'within_11', 'within_22', 'within_30'),
}
SCORES = {'values': metrics.dense_errors, 'depth': metrics.depth, 'normals': metrics.normals}


def dense_regression(
    task: str,
    *,
    of: str = 'values',
    num_outputs: int | None = None,
    reads: str | Sequence[str] = 'image',
    size: int | Sequence[int] | None = None,
    width: int = 64,
    level: int = 0,
    dropout_rate: float = 0.0,
    kind: str = 'mae',
    delta: float = 1.0,
    primary: str | None = None,
) -> Task:
    """Returns a task with numbers for every pixel; targets `[B, H, W]` or `[B, H, W, num_outputs]`, NaN is missing.

    Predictions of another size than the target are resized to it for the loss, bilinearly; scores take them by the
    nearest pixel. With `size` as that of the targets both are the same.

    Args:
      task: its name.
      of: 'values'; 'depth', of which 0 is missing too; or 'normals', vectors of length 1 whose loss is one minus the
        cosine of the angle, and of which the zero vector is missing too.
      num_outputs: how many numbers a pixel has; by default 1, of normals 3.
      reads: the modality of the picture; 'fused' where the fusion hands on maps.
      size: of the prediction, see `heads.DenseRegression`.
      width: of the head.
      level: of the head.
      dropout_rate: in the head.
      kind: of the loss of values and of depth: 'mae', 'mse' or 'huber'.
      delta: error at which the Huber loss turns linear.
      primary: 'abs_error' or 'rmse'; of depth also 'rel_error', 'delta1', 'delta2', 'delta3'; of normals 'angle_mean',
        'angle_median', 'within_11', 'within_22', 'within_30'. By default the first of these.

    Raises:
      ValueError: an option that is not among those named, or a number of outputs that does not fit.
    """
    scores_of = choice(task, 'of', of, SCORES)
    choice(task, 'kind', kind, dict.fromkeys(('mae', 'mse', 'huber')))
    expected = {'depth': 1, 'normals': 3}.get(of)
    num_outputs = num_outputs if num_outputs is not None else expected or 1
    at_least(task, 'num_outputs', num_outputs, 1)
    if expected and num_outputs != expected:
        raise ValueError(f'task {task!r}: {of} have num_outputs={expected} for every pixel, got {num_outputs}.')

    def loss(values: Array, targets: Array) -> Array:
        targets = targets.reshape(*targets.shape[:3], num_outputs)
        values = resized(values, targets.shape[1:3])
        valid = jnp.all(jnp.isfinite(targets), axis=-1)
        if of == 'normals':
            return losses.cosine_distance(values, targets, valid & jnp.any(targets != 0, axis=-1))
        valid = valid & (targets[..., 0] > 0) if of == 'depth' else valid
        return losses.masked_error(values, targets, valid, kind=kind, delta=delta)

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        return scores_of(*_alike(of, num_outputs, [output['values'] for output in outputs], targets))

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        wanted, found = _alike(of, num_outputs, [output['values']], [target])
        known = np.isfinite(wanted[0]) & (wanted[0] != 0 if of == 'depth' else True)
        return _middle(found[0]), _middle(wanted[0][known])

    def overlays(output: PyTree, target: PyTree) -> tuple[Values, Values]:
        (wanted,), (found,) = _alike(of, num_outputs, [output['values']], [target])
        if of == 'depth':
            wanted = np.where(wanted == 0, np.nan, wanted)
        elif of == 'normals':
            wanted = np.where(np.any(wanted != 0, axis=-1, keepdims=True), wanted, np.nan)
        return Values(found, of == 'normals'), Values(wanted, of == 'normals')

    return Task(
        name=task,
        head=heads.DenseRegression(num_outputs, of == 'normals', as_size(size), width, level, dropout_rate),
        loss=loss,
        metrics=lambda values, targets, weights: {},
        scorer=Scorer(lambda values: {'values': values}, score),
        **primary_metric(task, primary or KNOWN[of][0], list(KNOWN[of])),
        reads=reading(reads),
        describe=describe,
        overlays=overlays,
    )


def _alike(
    of: str, num_outputs: int, predicted: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns targets and predictions as the scores take them: `[H, W]` for depth, else `[H, W, num_outputs]`."""

    def shaped(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        return values.reshape(values.shape[:2] if of == 'depth' else (*values.shape[:2], num_outputs))

    return [shaped(target) for target in targets], [shaped(values) for values in predicted]


def _middle(values: np.ndarray) -> str:
    return f'median {np.median(values):.3g}' if values.size else 'nothing'
