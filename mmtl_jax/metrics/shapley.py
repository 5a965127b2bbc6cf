"""What each modality is worth: exact Shapley values over the subsets of modalities."""

import math
from collections.abc import Mapping, Sequence

from mmtl_jax.core.subsets import Subset, subsets_of


def shapley_values(values: Mapping[Subset, float], players: Sequence[str]) -> dict[str, float]:
    """Returns the exact Shapley value of each player, Shapley (1953).

        phi_m = sum over S without m of  |S|! (M - |S| - 1)! / M!  (v(S + m) - v(S))

    that is, what m adds on average when all players come in a random order. The values add up to v(all) - v(()).

    Args:
      values: v of every subset, the empty one included, each a tuple in the order of `players`.
      players: the M names.

    Raises:
      ValueError: a subset has no value.
    """
    missing = [subset for subset in subsets_of(players) if subset not in values]
    if missing:
        raise ValueError(
            f'shapley_values needs a value for every subset of {list(players)}, got none for {missing[0]}.'
        )
    count, worth = len(players), dict.fromkeys(players, 0.0)
    for subset in subsets_of(players):
        weight = 1 / (count * math.comb(count - 1, len(subset))) if len(subset) < count else 0.0
        for player in set(players) - set(subset):
            joined = tuple(name for name in players if name in subset or name == player)
            worth[player] += weight * (values[joined] - values[subset])
    return worth
