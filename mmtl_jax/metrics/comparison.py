"""Which way a metric goes, and one number for a multi-task model beside a model per task."""

from collections.abc import Mapping

import numpy as np

CONVENTIONS = ('nash_mtl', 'libmtl')
LOWER_IS_BETTER = frozenset(
    {
        'abs_error', 'angle_mean', 'angle_median', 'brier', 'cer', 'distance', 'ece', 'loss', 'mae', 'median_rank',
        'mse', 'nll', 'rel_error', 'rmse', 'wer'
    }
)  # fmt: skip


def higher_is_better(metric: str) -> bool:
    """Returns the direction of a metric by its name, which may have a prefix, as in `image_to_text_median_rank`."""
    return not any(metric == name or metric.endswith(f'_{name}') for name in LOWER_IS_BETTER)


def delta_m(
    values: Mapping[str, float],
    baselines: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    *,
    convention: str = 'nash_mtl',
) -> float:
    """Returns how far a multi-task model is from its single-task baselines, in percent of these.

    With M the values, B the baselines and s = 1 for a metric of which higher is better, -1 for another:

        nash_mtl    100 mean over all metrics of  s (B - M) / B                          a drop: lower is better
        libmtl      100 mean over the tasks of the mean over their metrics of s (M - B) / B    a gain: higher is better

    The first is Delta_m of Maninis et al. (2019, 1904.08918) with the sign that most papers print since Liu et al.
    (2021, CAGrad, 2110.14048), as in `delta_fn` of the official code of Nash-MTL (2202.01017); the second is
    Delta_p of LibMTL (2203.14338), whose `count_improvement` returns it as a fraction. They differ in the sign, and,
    where tasks have different numbers of metrics, in how these count.

    Args:
      values: `<task>/<metric>` -> value, as in `summary.json`; other keys than those of `higher_is_better` are ignored.
      baselines: the same of single-task runs.
      higher_is_better: `<task>/<metric>` -> direction, for every metric that counts.
      convention: 'nash_mtl' or 'libmtl'.

    Raises:
      ValueError: no metric, one that is missing, a baseline that is not positive, or an unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f'delta_m: convention must be one of {CONVENTIONS}, got {convention!r}.')
    if not higher_is_better:
        raise ValueError('delta_m needs at least one metric in higher_is_better, got none.')
    gains: dict[str, list[float]] = {}
    for key, higher in higher_is_better.items():
        for what, numbers in (('values', values), ('baselines', baselines)):
            if key not in numbers:
                raise ValueError(f'delta_m: {what} lack {key!r}; they have {sorted(numbers)}.')
        if baselines[key] <= 0:
            raise ValueError(
                f'delta_m: the baseline of {key!r} is {baselines[key]}; it must be above 0 for a percentage.'
            )
        gain = (values[key] - baselines[key]) / baselines[key]
        gains.setdefault(key.split('/')[0], []).append(gain if higher else -gain)
    if convention == 'libmtl':
        return 100.0 * float(np.mean([np.mean(of_task) for of_task in gains.values()]))
    return -100.0 * float(np.mean([gain for of_task in gains.values() for gain in of_task]))
