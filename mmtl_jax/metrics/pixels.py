"""Scores of what has a value for every pixel, over a whole split, on the host. Numpy in, plain floats out.

Every pixel that has a target counts the same, whatever picture it is in. Predictions of another size than the target
are brought to it by the nearest pixel; the target never moves. A score without any pixel is left out.
"""

from collections.abc import Sequence

import numpy as np

DELTAS = (1.25, 1.25**2, 1.25**3)
# In degrees, and how scores call them.
ANGLES = {'within_11': 11.25, 'within_22': 22.5, 'within_30': 30.0}
# What a depth below it, or a negative one, counts as in ratios.
SMALLEST_DEPTH = 1e-3


def at_size(predicted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns `predicted` `[h, w, ...]` at `size`: of each pixel the one in which its middle lies."""
    rows, columns = (
        np.floor((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, predicted.shape[:2], strict=True)
    )
    return predicted[rows][:, columns]


def pixel_confusion(targets: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns `[num_classes, num_classes]` counts of pixels; the row is the true class, the column the predicted one.

    Args:
      targets: `[H, W]` ints; -1 and 255 are ignored.
      predicted: `[h, w]` ints from 0 to `num_classes - 1`.
      num_classes: number of classes.

    Raises:
      ValueError: a target that is neither a class nor ignored.
    """
    targets = np.asarray(targets)
    valid = (targets != -1) & (targets != 255)
    truth, guess = targets[valid].astype(np.int64), at_size(np.asarray(predicted), targets.shape)[valid]
    if truth.size and not (truth.min() >= 0 and truth.max() < num_classes):
        wrong = truth.min() if truth.min() < 0 else truth.max()
        raise ValueError(
            f'a mask has the class {wrong}, expected 0 to {num_classes - 1} (num_classes={num_classes}), or -1 or 255 '
            'to be ignored.'
        )
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def segmentation(confusion: np.ndarray) -> dict[str, float]:
    """Returns `miou` and `pixel_accuracy` from one confusion matrix over the whole split.

    `miou` is the mean of intersection over union over the classes that occur in the targets or in the predictions.
    """
    if not confusion.sum():
        return {}
    right = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    return {
        'miou': float(np.mean(right[union > 0] / union[union > 0])),
        'pixel_accuracy': float(right.sum() / confusion.sum()),
    }


def depth(targets: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns the scores of Eigen et al. (2014, 1406.2283, section 4.3), over all measured pixels.

    With d the target and p the prediction, `abs_error` is the mean of |p - d|, `rel_error` of |p - d| / d, `rmse` the
    root of the mean of (p - d)^2, and `delta1` to `delta3` the shares of pixels with max(p / d, d / p) below 1.25,
    1.25^2 and 1.25^3; there, a prediction is at least .001.

    Args:
      targets: `[H, W]` each; NaN, and what is not above 0, is not measured.
      predicted: `[h, w]` each.
    """
    totals, count = np.zeros(3 + len(DELTAS)), 0
    for target, guess in zip(targets, predicted, strict=True):
        target = np.asarray(target, np.float64)
        valid = np.isfinite(target) & (target > 0)
        d, p = target[valid], at_size(np.asarray(guess, np.float64), target.shape)[valid]
        error, positive = np.abs(p - d), np.maximum(p, SMALLEST_DEPTH)
        ratio = np.maximum(positive / d, d / positive)
        terms = (error, error / d, np.square(error), *(ratio < limit for limit in DELTAS))
        totals += [term.sum() for term in terms]
        count += d.size
    if not count:
        return {}
    means = totals / count
    deltas = {f'delta{number}': float(share) for number, share in enumerate(means[3:], 1)}
    return {'abs_error': float(means[0]), 'rel_error': float(means[1]), 'rmse': float(np.sqrt(means[2]))} | deltas


def normals(targets: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns the statistics of the angle between normals (Fouhey et al. 2013), over all pixels that have one.

    `angle_mean` and `angle_median` in degrees, and the shares of pixels within 11.25, 22.5 and 30 degrees.

    Args:
      targets: `[H, W, 3]` each, of any length; NaN and zero vectors have no direction.
      predicted: `[h, w, 3]` each, of any length; a zero vector is at a right angle to all.
    """
    found = []
    for target, guess in zip(targets, predicted, strict=True):
        target = np.asarray(target, np.float64)
        guess = at_size(np.asarray(guess, np.float64), target.shape[:2])
        length = np.linalg.norm(target, axis=-1)
        valid = np.isfinite(length) & (length > 0)
        lengths = (length * np.linalg.norm(guess, axis=-1))[valid]
        cosine = np.sum(target[valid] * guess[valid], axis=-1) / np.where(lengths > 0, lengths, 1)
        found.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))).astype(np.float32))
    angles = np.concatenate(found) if found else np.zeros(0)
    if not angles.size:
        return {}
    shares = {name: float(np.mean(angles < limit)) for name, limit in ANGLES.items()}
    return {'angle_mean': float(np.mean(angles)), 'angle_median': float(np.median(angles))} | shares


def dense_errors(targets: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns `abs_error` and `rmse` of numbers `[H, W, C]` each, over all that are not NaN."""
    absolute = square = count = 0
    for target, guess in zip(targets, predicted, strict=True):
        error = at_size(np.asarray(guess, np.float64), target.shape[:2]) - target
        error = error[np.isfinite(target)]
        absolute, square, count = absolute + np.abs(error).sum(), square + np.square(error).sum(), count + error.size
    return {'abs_error': float(absolute / count), 'rmse': float(np.sqrt(square / count))} if count else {}
