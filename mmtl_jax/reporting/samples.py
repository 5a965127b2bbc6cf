"""What a report shows beside the numbers: predictions on single examples, and the scores of whole splits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmtl_jax.metrics import Reliability
from mmtl_jax.reporting.scenes import Scene


@dataclasses.dataclass(frozen=True)
class Answer:
    """One task's answer on one example, in words.

    Attributes:
      predicted: what the model said.
      expected: what the label says.
      correct: whether that is right; None where right and wrong are no question (a regression, a retrieval).
    """

    predicted: str
    expected: str
    correct: bool | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """One example with the model's answers, as people see it.

    Attributes:
      id: the example's name in its data set.
      images: modality -> uint8 `[H, W]`, `[H, W, 3]` or `[H, W, 4]`.
      texts: modality -> text.
      waveforms: modality -> (samples `[L]`, floats in [-1, 1] or int16; rate in Hz).
      spectrograms: modality -> log-mel `[T, n_mels]`, for a modality without waveform.
      tables: modality -> {column: value}.
      answers: task -> `Answer`.
      scene: a picture with the answers that lie in it; None where none do.
    """

    id: str
    images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    waveforms: Mapping[str, tuple[np.ndarray, int]] = dataclasses.field(default_factory=dict)
    spectrograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    answers: Mapping[str, Answer] = dataclasses.field(default_factory=dict)
    scene: Scene | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How one task did on one split.

    Attributes:
      scores: metric -> value, such as `{'accuracy': 0.64, 'macro_f1': 0.56}`.
      confusion: `[C, C]` counts, row = expected, column = predicted; None for tasks without classes.
      class_names: `C` names; numbers are shown when empty.
      reliability: bins of confidence; None for tasks without probabilities.
    """

    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    confusion: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    reliability: Reliability | None = None


def confusion_matrix(expected: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the counts `[num_classes, num_classes]`, row = expected, column = predicted.

    Args:
      expected: `[N]` class numbers.
      predicted: `[N]` class numbers.
      num_classes: the number of classes.

    Raises:
      ValueError: the two differ in length, or a class number lies outside `0 .. num_classes - 1`.
    """
    expected, predicted = np.asarray(expected, np.int64).ravel(), np.asarray(predicted, np.int64).ravel()
    if expected.shape != predicted.shape:
        raise ValueError(f'{expected.size} expected and {predicted.size} predicted classes; give one of each per row.')
    both = np.concatenate([expected, predicted])
    if both.size and not (both.min() >= 0 and both.max() < num_classes):
        raise ValueError(f'class numbers must lie in 0..{num_classes - 1}, got {both.min()}..{both.max()}.')
    return np.bincount(expected * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
