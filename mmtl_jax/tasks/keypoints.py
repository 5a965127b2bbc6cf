"""Tasks whose answer is where certain points are."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.overlays import Points
from mmtl_jax.core.types import PyTree
from mmtl_jax.heads.keypoints import decode_keypoints
from mmtl_jax.tasks.base import Scorer, Task, at_least, called, class_names_of, primary_metric, reading


def keypoints(
    task: str,
    *,
    num_keypoints: int,
    reads: str | Sequence[str] = 'image',
    width: int = 64,
    level: int = 0,
    dropout_rate: float = 0.0,
    deviation: float = 1.0,
    class_names: Sequence[str] = (),
    primary: str = 'pck10',
) -> Task:
    """Returns a task of points; targets `[B, num_keypoints, 3]`: y and x as shares of the sides, and visibility.

    Args:
      task: its name.
      num_keypoints: number of points.
      reads: the modality of the picture; 'fused' where the fusion hands on maps.
      width: of the head.
      level: of the head.
      dropout_rate: in the head.
      deviation: of the Gaussians around the points that the heat maps learn, in cells.
      class_names: what the points are called, for reports.
      primary: 'pck10' or 'pck5', the shares of points within 10 and 5 percent of the side; or 'distance'.
    """
    at_least(task, 'num_keypoints', num_keypoints, 1)
    if deviation <= 0:
        raise ValueError(f'task {task!r}: deviation must be above 0, got {deviation}.')
    names = class_names_of(task, class_names, num_keypoints)

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        return metrics.keypoints(targets, [output['points'] for output in outputs])

    def describe(output: PyTree, target: PyTree) -> tuple[str, str]:
        known = np.flatnonzero(np.asarray(target)[:, 2] > 0)
        return tuple(
            ', '.join(f'{called(names, k)} at {points[k][0]:.2f}, {points[k][1]:.2f}' for k in known) or 'nothing'
            for points in (output['points'], np.asarray(target))
        )

    def overlays(output: PyTree, target: PyTree) -> tuple[Points, Points]:
        target = np.asarray(target)
        known = np.where(target[:, 2:] > 0, target[:, :2], np.nan)
        return Points(np.where(np.isnan(known), np.nan, output['points']), names), Points(known, names)

    return Task(
        name=task,
        head=heads.Keypoints(num_keypoints, width, level, dropout_rate),
        loss=partial(losses.keypoint_cross_entropy, deviation=deviation),
        metrics=lambda logits, targets, weights: {},
        scorer=Scorer(decode_keypoints, score),
        **primary_metric(task, primary, ['pck10', 'pck5', 'distance']),
        reads=reading(reads),
        class_names=names,
        describe=describe,
        overlays=overlays,
    )
