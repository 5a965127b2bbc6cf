"""Whether probabilities mean what they say: expected calibration error, negative log-likelihood and Brier score."""

import dataclasses

import numpy as np

NUM_BINS = 15
# The smallest normal float32: a softmax in float32 gives 0 below it, whose logarithm no mean survives.
LEAST = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Sums and counts over equal-width bins of confidence; those of two parts of a split add up.

    Bin i of B holds the confidences in (i / B, (i + 1) / B], the first one 0 as well.

    Attributes:
      counts: `[B]`, answers in the bin.
      confidences: `[B]`, their summed confidence.
      correct: `[B]`, how many of them are right.
    """

    counts: np.ndarray
    confidences: np.ndarray
    correct: np.ndarray

    def __add__(self, other: 'Reliability') -> 'Reliability':
        """Returns the reliability of both parts together."""
        return Reliability(
            self.counts + other.counts, self.confidences + other.confidences, self.correct + other.correct
        )

    @property
    def ece(self) -> float:
        """Expected calibration error, `sum_i n_i / n |accuracy_i - confidence_i|`: Guo et al., 1706.04599, eq. 3."""
        return float(np.abs(self.correct - self.confidences).sum() / max(self.counts.sum(), 1))


def reliability(targets: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS) -> Reliability:
    """Returns the bins of a reliability diagram.

    For classes, the answer is the class of highest probability (the lowest of equal ones), its probability the
    confidence (Guo et al., 1706.04599). For labels, each label of each row is an answer of its own: its probability is
    the confidence that the label is on, so that a bin compares it with how often labels are on.

    Args:
      targets: classes `[N]` int, or labels `[N, K]` of 0 and 1.
      probabilities: `[N, C]` over classes, or `[N, K]` of each label.
      num_bins: B.
    """
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, np.float64)
    if targets.ndim == 1:
        confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == targets
    else:
        confidence, right = probabilities.ravel(), targets.ravel() > 0.5
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(bins, weights=weights, minlength=num_bins)

    return Reliability(total(np.ones(len(bins))), total(confidence), total(right.astype(np.float64)))


def calibration(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Returns `ece`, `nll` and `brier` of classes or labels; lower is better for all three.

        nll    mean of -log p(label)                      a probability below 1.2e-38 counts as that
        brier  classes: mean over rows of sum_c (p_c - [c = label])^2, in [0, 2] (Brier, 1950)
               labels: mean over rows and labels of (p - y)^2, in [0, 1]

    With labels, `nll` is the mean over them of the binary cross-entropy. See `reliability` for `ece`, in 15 bins.

    Args:
      targets: classes `[N]` int, or labels `[N, K]` of 0 and 1.
      probabilities: `[N, C]`, or `[N, K]`.
    """
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, np.float64)
    if not len(targets):
        return {}
    if targets.ndim == 1:
        given = np.take_along_axis(probabilities, targets[:, None].astype(int), axis=-1)[:, 0]
        truth = np.arange(probabilities.shape[-1]) == targets[:, None]
        brier = np.square(probabilities - truth).sum(axis=-1).mean()
    else:
        given = np.where(targets > 0.5, probabilities, 1 - probabilities)
        brier = np.square(probabilities - (targets > 0.5)).mean()
    return {
        'ece': reliability(targets, probabilities).ece,
        'nll': float(-np.log(np.maximum(given, LEAST)).mean()),
        'brier': float(brier),
    }
