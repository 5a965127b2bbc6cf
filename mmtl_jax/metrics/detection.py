"""Average precision of detections, on the host, by the official code of COCO."""

import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Where pycocotools has them among its twelve numbers; the last three are by the size of the objects in pixels.
SCORES = ('ap', 'ap50', 'ap75')
BY_SIZE = ('ap_small', 'ap_medium', 'ap_large')

Objects = Mapping[str, np.ndarray]


def require_pycocotools() -> None:
    """Raises a `ValueError` that says what to install if pycocotools is not there."""
    if importlib.util.find_spec('pycocotools') is None:
        raise ValueError(
            "average precision needs the package pycocotools; install it with pip install 'mmtl_jax[vision]'."
        )


def mean_average_precision(
    detections: Sequence[Objects],
    targets: Sequence[Objects],
    *,
    size: tuple[int, int] | None = None,
    class_agnostic: bool = False,
) -> dict[str, float]:
    """Returns the average precision of COCO (Lin et al. 2014, 1405.0312; as pycocotools computes it).

    `ap` is the mean over the classes that occur and over ten thresholds of the IoU, .5 to .95; `ap50` and `ap75` are
    those of one threshold. With `size`, `ap_small`, `ap_medium` and `ap_large` are those of objects below 32 x 32
    pixels, up to 96 x 96, and above. At most 100 detections of a picture count. What a crowd covers is neither right
    nor wrong. A score without any object to find is left out.

    Args:
      detections: for each picture `boxes` `[K, 4]`, ymin, xmin, ymax, xmax as shares of the sides, `scores` `[K]` and
        `labels` `[K]`; a negative score is no detection.
      targets: for each picture `boxes` `[N, 4]`, `labels` `[N]` and, if there are any, `crowd` `[N]` bool.
      size: height and width of the pictures in pixels.
      class_agnostic: all objects are of one class.

    Raises:
      ValueError: pycocotools is missing, or a picture has detections and no targets, or the other way around.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    if len(detections) != len(targets):
        raise ValueError(
            f'mean_average_precision needs both for each picture, got detections of {len(detections)} and targets of '
            f'{len(targets)}.'
        )
    categories = {0}
    if not class_agnostic:
        categories = {int(label) for objects in (*detections, *targets) for label in objects['labels'] if label >= 0}
    found = [
        {name: objects[name][objects['scores'] >= 0] for name in ('boxes', 'scores', 'labels')}
        for objects in detections
    ]
    # The official code reports its progress on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        truth, answers = (_coco(pictures, categories, size or (1, 1), class_agnostic) for pictures in (targets, found))
        evaluation = COCOeval(truth, answers, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = SCORES if size is None else SCORES + BY_SIZE
    return {name: float(value) for name, value in zip(names, evaluation.stats, strict=False) if value >= 0}


def _coco(pictures: Sequence[Objects], categories: set[int], size: tuple[int, int], class_agnostic: bool) -> Any:
    """Returns the objects in the form of COCO: boxes are x, y, width, height in pixels."""
    from pycocotools.coco import COCO

    annotations = []
    for image, objects in enumerate(pictures):
        boxes = np.asarray(objects['boxes'], np.float64).reshape(-1, 4) * np.tile(size, 2)
        crowd = objects.get('crowd', np.zeros(len(boxes), bool))
        scores = objects.get('scores', np.ones(len(boxes)))
        for box, label, is_crowd, score in zip(boxes, objects['labels'], crowd, scores, strict=True):
            height, width = box[2:] - box[:2]
            annotations.append(
                {
                    'id': len(annotations) + 1,  # The official code takes an object of number 0 for unmatched.
                    'image_id': image,
                    'category_id': 0 if class_agnostic else int(label),
                    'bbox': [box[1], box[0], width, height],
                    'area': width * height,
                    'iscrowd': int(is_crowd),
                    'score': float(score),
                }
            )
    coco = COCO()
    coco.dataset = {
        'images': [{'id': image} for image in range(len(pictures))],
        'categories': [{'id': category} for category in sorted(categories)],
        'annotations': annotations,
    }
    coco.createIndex()
    return coco
