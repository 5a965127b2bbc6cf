"""How much of its performance a model keeps while an input gets worse: the curves of MultiBench and their areas."""

from collections.abc import Sequence

import numpy as np


def area(levels: Sequence[float], values: Sequence[float]) -> float:
    """Returns the mean height of a curve: the area below it by the trapezoidal rule, over the range of `levels`.

    Args:
      levels: `[n]`, increasing, at least two.
      values: `[n]`.

    Raises:
      ValueError: levels that do not increase, fewer than two, or another number of values.
    """
    levels, values = np.asarray(levels, np.float64), np.asarray(values, np.float64)
    if levels.ndim != 1 or len(levels) < 2 or levels.shape != values.shape or (np.diff(levels) <= 0).any():
        raise ValueError(
            f'a curve needs at least two increasing levels and a value for each, got {levels.tolist()} and '
            f'{values.tolist()}.'
        )
    return float(np.trapezoid(values, levels) / (levels[-1] - levels[0]))


def relative_robustness(levels: Sequence[float], values: Sequence[float]) -> float:
    """Returns the area under the curve of performance f over the level s of corruption; MultiBench, 2107.07502.

        integral from 0 to 1 of f(s) ds

    by the trapezoidal rule, as in the official code, and divided by the range of the levels where that is not 1. It is
    the mean performance over the levels, in the metric's own unit and direction.
    """
    return area(levels, values)


def effective_robustness(
    levels: Sequence[float],
    values: Sequence[float],
    baseline: Sequence[float],
    *,
    higher_is_better: bool = True,
) -> float:
    """Returns the area between a model's curve and what its baseline lets expect of it; MultiBench, 2107.07502.

        integral from 0 to 1 of f(s) - beta(s) ds,    beta(s) = LF(s) + f(0) - LF(0)

    with f the model's curve and LF the baseline's, in the paper that of late fusion, moved to the model's performance
    on clean data. Above 0 the model loses less than its baseline. The official code adds up the differences at the
    levels; this is their area, which does not depend on how many levels there are. Where lower is better, the sign is
    turned, so that above 0 stays the better.

    Args:
      levels: `[n]`, increasing, the first one clean.
      values: `[n]`, f.
      baseline: `[n]`, LF at the same levels.
      higher_is_better: direction of the metric.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if values.shape != baseline.shape:
        raise ValueError(f'a baseline needs the levels of the model: {values.size} values and {baseline.size} of it.')
    between = area(levels, values - (baseline + values[0] - baseline[0]))
    return between if higher_is_better else -between
