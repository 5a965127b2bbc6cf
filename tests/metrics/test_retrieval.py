"""Retrieval by hand, and the chance level against all orders."""

import itertools

import numpy as np
import pytest

from mmtl_jax.metrics import chance_recall, first_positive_ranks, retrieval


def on_circle(*degrees: float) -> np.ndarray:
    """Returns unit vectors in the plane."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=-1)


def test_ranks_by_hand():
    queries, gallery = on_circle(0, 90), on_circle(10, 20, 30, 100)
    # From 0 degrees the order is 10, 20, 30, 100; from 90 it is 100, 30, 20, 10.
    ranks, positives = first_positive_ranks(queries, np.array([5, 7]), gallery, np.array([1, 5, 5, 7]))
    np.testing.assert_array_equal(ranks, [2, 1])
    np.testing.assert_array_equal(positives, [2, 1])


def test_ties_count_against_the_model_and_a_query_without_counterpart_does_not_ask():
    same = on_circle(0, 0, 0)
    ranks, _ = first_positive_ranks(same, np.array([0, 1, 9]), same, np.array([0, 1, 2]))
    np.testing.assert_array_equal(ranks, [3, 3])


def test_recall_and_median_by_hand():
    degrees = np.arange(0.0, 120.0, 10.0)
    embeddings = {'image': on_circle(*degrees), 'text': on_circle(*degrees[::-1])}
    valid = {modality: np.ones(12, bool) for modality in embeddings}
    scores = retrieval(embeddings, valid, np.arange(12))
    # Image i is at 10 i, its text at 110 - 10 i: all texts at most |110 - 20 i| away, but itself, are closer.
    ranks = []
    for i in range(12):
        distances = np.abs(degrees[::-1] - degrees[i])
        ranks.append(1 + np.sum(distances[np.arange(12) != i] <= distances[i] + 1e-9))
    for direction in ('image_to_text', 'text_to_image'):
        for k in (1, 5, 10):
            assert scores[f'{direction}_r{k}'] == pytest.approx(np.mean(np.array(ranks) <= k))
            assert scores[f'{direction}_r{k}_chance'] == pytest.approx(k / 12)
        assert scores[f'{direction}_median_rank'] == np.median(ranks)
        assert scores[f'{direction}_median_rank_chance'] == 6
    assert scores['r5'] == scores['image_to_text_r5']
    assert scores['r5_chance'] == pytest.approx(5 / 12)


def test_an_item_asks_once_and_is_found_once():
    # The picture of rows 0 to 2 and that of row 3; texts of rows 0 and 2 are one.
    embeddings = {'image': on_circle(0, 0, 0, 90), 'text': on_circle(80, 10, 80, 60)}
    valid = {'image': np.ones(4, bool), 'text': np.array([True, True, True, False])}
    identity = {'image': np.array([4, 4, 4, 2]), 'text': np.array([1, 3, 1, 9])}
    scores = retrieval(embeddings, valid, np.array([0, 0, 0, 1]), identity)
    # One picture has counterparts, both texts are its own; of the texts, each has one of two pictures right.
    assert scores['image_to_text_r1'] == 1
    assert scores['image_to_text_r1_chance'] == 1
    assert scores['text_to_image_r1'] == 0.5
    assert scores['text_to_image_r1_chance'] == 0.5
    assert scores['text_to_image_median_rank'] == 1.5


def test_rows_without_the_modality_change_nothing():
    generator = np.random.default_rng(0)
    embeddings = {modality: generator.normal(size=(8, 3)).astype(np.float32) for modality in ('image', 'text')}
    valid = {'image': np.arange(8) != 2, 'text': np.arange(8) < 6}
    clean = retrieval(embeddings, valid, np.arange(8))
    dirty = {modality: np.where(valid[modality][:, None], vectors, np.nan) for modality, vectors in embeddings.items()}
    assert retrieval(dirty, valid, np.arange(8)) == clean


def test_no_counterpart_anywhere_gives_no_score():
    embeddings = {'image': on_circle(0, 1), 'text': on_circle(0, 1)}
    valid = {'image': np.array([True, False]), 'text': np.array([False, True])}
    assert retrieval(embeddings, valid, np.array([0, 1])) == {}


def test_chance_is_the_share_of_all_orders():
    size, positives = 6, np.array([1, 2, 4])
    orders = list(itertools.permutations(range(size)))
    expected = [[np.mean([min(order[:k]) < p for order in orders]) for k in range(1, size + 1)] for p in positives]
    np.testing.assert_allclose(chance_recall(positives, size), expected, atol=1e-12)


def test_three_modalities_have_six_directions():
    generator = np.random.default_rng(0)
    embeddings = {modality: generator.normal(size=(5, 3)) for modality in ('image', 'speech', 'text')}
    scores = retrieval(embeddings, {modality: np.ones(5, bool) for modality in embeddings}, np.arange(5))
    directions = [name for name in scores if name.endswith('_r5')]
    assert len(directions) == 6
    assert scores['r5'] == pytest.approx(np.mean([scores[name] for name in directions]))
