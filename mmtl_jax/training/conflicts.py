"""How the tasks' gradients lie to one another: norms, cosines and conflicts, of a Gramian that came to the host."""

from collections.abc import Sequence

import numpy as np

# Their values are named `gradients/...`, beside the tasks' own `<task>/...`, so no task may be called this.
GRADIENTS = 'gradients'


def conflict_measures(gramian: np.ndarray, active: np.ndarray, tasks: Sequence[str]) -> list[tuple[str, float, float]]:
    """Returns what one measured step adds to the means of a line of training metrics, as (name, sum, count).

    - `<task>/gradient_norm`: `|g_a| = sqrt(G_aa)` of every active task;
    - `gradients/cosine/<a>/<b>`: `G_ab / (|g_a| |g_b|)` of every pair, a before b, of active tasks with a gradient that
      is not zero;
    - `gradients/conflicts`: the share of these pairs whose cosine is negative.

    What the step cannot tell has sum and count 0: an inactive task, a pair with a zero gradient, a norm or an inner
    product that is not finite. The values are exact at every scale: nothing is added to a norm, and a product of two
    squared norms, which could overflow, is never formed.

    Args:
      gramian: `[T, T]`, the inner products of the tasks' gradients; only the upper triangle is read, and rows and
        columns of inactive tasks may hold anything.
      active: `[T]` bool, the tasks that took part in the step.
      tasks: `T` names.

    Raises:
      ValueError: the shapes do not fit the names.
    """
    gramian, active = np.asarray(gramian, np.float64), np.asarray(active, bool)
    if gramian.shape != (len(tasks), len(tasks)) or active.shape != (len(tasks),):
        raise ValueError(
            f'for {len(tasks)} tasks the Gramian is [{len(tasks)}, {len(tasks)}] and active [{len(tasks)}], '
            f'got the shapes {gramian.shape} and {active.shape}.'
        )
    with np.errstate(invalid='ignore'):  # what is not finite, or negative by rounding, has no norm
        norms = np.sqrt(np.diagonal(gramian))
    measured = active & np.isfinite(norms)
    first, second = np.triu_indices(len(tasks), 1)
    products, direct = gramian[first, second], measured & (norms > 0)
    known = direct[first] & direct[second] & np.isfinite(products)
    cosines = np.zeros(len(first))
    cosines[known] = np.clip(products[known] / norms[first[known]] / norms[second[known]], -1.0, 1.0)
    conflicts, pairs = np.count_nonzero(products[known] < 0), np.count_nonzero(known)
    return [
        *_triples([f'{task}/gradient_norm' for task in tasks], norms, measured),
        (f'{GRADIENTS}/conflicts', conflicts / pairs if pairs else 0.0, float(pairs > 0)),
        *_triples(
            [f'{GRADIENTS}/cosine/{tasks[a]}/{tasks[b]}' for a, b in zip(first, second, strict=True)], cosines, known
        ),
    ]


def _triples(names: Sequence[str], values: np.ndarray, known: np.ndarray) -> list[tuple[str, float, float]]:
    """Returns (name, value, 1) where the value is known, (name, 0, 0) elsewhere."""
    sums = np.where(known, values, 0.0).tolist()
    return list(zip(names, sums, known.astype(float).tolist(), strict=True))
