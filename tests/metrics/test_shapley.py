"""Shapley values: the mean over all orders of arrival, and the axioms that define them."""

from itertools import permutations

import numpy as np
import pytest

from mmtl_jax.core.subsets import subsets_of
from mmtl_jax.metrics import shapley_values

PLAYERS = ('speech', 'image', 'caption', 'table')


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    return {subset: float(random.normal()) for subset in subsets_of(PLAYERS)}


def arrivals(values, players):
    """Returns the mean marginal contribution over all orders, straight from the definition."""
    worth = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for place, player in enumerate(order):
            before, after = order[:place], order[: place + 1]
            ordered = [tuple(name for name in players if name in names) for names in (before, after)]
            worth[player] += (values[ordered[1]] - values[ordered[0]]) / len(orders)
    return worth


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_is_the_mean_over_all_orders(values, count):
    players = PLAYERS[:count]
    assert shapley_values(values, players) == pytest.approx(arrivals(values, players), abs=1e-12)


def test_adds_up_to_what_all_are_worth(values):
    assert sum(shapley_values(values, PLAYERS).values()) == pytest.approx(values[PLAYERS] - values[()])


def test_who_adds_nothing_is_worth_nothing_and_equals_are_equal():
    def worth(subset):
        return 0.3 + 2.0 * ('image' in subset) * ('speech' in subset)

    found = shapley_values({subset: worth(subset) for subset in subsets_of(PLAYERS)}, PLAYERS)
    assert found == pytest.approx({'image': 1.0, 'speech': 1.0, 'caption': 0.0, 'table': 0.0}, abs=1e-12)


def test_every_subset_needs_a_value(values):
    del values['image', 'caption']
    with pytest.raises(ValueError, match=r"every subset of .*, got none for \('image', 'caption'\)"):
        shapley_values(values, PLAYERS)
