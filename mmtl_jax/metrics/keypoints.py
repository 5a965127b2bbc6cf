"""How far predicted points are from the true ones, over a whole split, on the host."""

from collections.abc import Sequence

import numpy as np

SHARES = (0.05, 0.1)


def keypoints(targets: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns the mean `distance` and, as `pck5` and `pck10`, the share of points that are near enough.

    These are the percentages of correct keypoints (Yang and Ramanan 2013) within 5 and 10 percent of the side of the
    picture. Distances are shares of the sides. Points of visibility 0 do not count; without any others there is no
    score.

    Args:
      targets: `[K, 3]` each: y, x and visibility.
      predicted: `[K, 2]` each: y and x.
    """
    found = [np.zeros(0)]
    for target, guess in zip(targets, predicted, strict=True):
        known = np.asarray(target)[:, 2] > 0
        found.append(np.linalg.norm(np.asarray(guess)[known] - np.asarray(target)[known, :2], axis=-1))
    distances = np.concatenate(found)
    if not distances.size:
        return {}
    shares = {f'pck{round(100 * share)}': float(np.mean(distances <= share)) for share in SHARES}
    return {'distance': float(np.mean(distances))} | shares
