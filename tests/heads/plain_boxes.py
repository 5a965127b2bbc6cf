"""Boxes in plain numpy, one pair at a time."""

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Returns intersection over union of two boxes, 0 without any area."""
    height, width = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    both = height * width
    union = np.prod(np.maximum(a[2:] - a[:2], 0)) + np.prod(np.maximum(b[2:] - b[:2], 0)) - both
    return both / union if union > 0 else np.float32(0)


def suppress(boxes, scores, labels, mask, threshold: float) -> np.ndarray:
    """Returns which boxes stay: the greedy algorithm as every paper has it."""
    left = [int(index) for index in np.argsort(-scores, kind='stable') if mask[index]]
    stays = np.zeros(len(scores), bool)
    while left:
        best, *left = left
        stays[best] = True
        left = [i for i in left if labels[i] != labels[best] or not iou(boxes[best], boxes[i]) > threshold]
    return stays
