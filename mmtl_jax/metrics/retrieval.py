"""Retrieval across modalities, on the host, next to what chance would reach."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np

KS = (1, 5, 10)


def retrieval(
    embeddings: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    group: np.ndarray,
    identity: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Returns recall at 1, 5 and 10 and the median rank for each direction of each pair of modalities.

    For each direction, such as `image_to_text`: `image_to_text_r5` is the share of images that have a text of their
    group among the five closest, `image_to_text_median_rank` the median over the images of the rank of the closest
    such text. `..._chance` is what a random order reaches (see `chance_recall`). `r5` and `r5_chance` are the means
    over the directions.

    Items are told apart by their identity: a picture that stands in nine rows asks once and is found once. Equal
    similarities count against the model. An item without any counterpart in the gallery does not ask.

    Args:
      embeddings: modality -> `[N, E]`, of length 1.
      valid: modality -> `[N]` bool, False = the row lacks the modality.
      group: `[N]` int; items of one group belong together. Rows with one identity must have one group.
      identity: modality -> `[N]` int, which item the row shows; a modality that is not named has one item per row.
    """
    items = {
        modality: _distinct(vectors, valid[modality], group, (identity or {}).get(modality))
        for modality, vectors in embeddings.items()
    }
    scores: dict[str, float] = {}
    for asking, asked in permutations(items, 2):
        ranks, positives = first_positive_ranks(*items[asking], *items[asked])
        if len(ranks):
            direction = _summary(ranks, positives, len(items[asked][1]))
            scores |= {f'{asking}_to_{asked}_{name}': value for name, value in direction.items()}
    for name in [f'r{k}{suffix}' for k in KS for suffix in ('', '_chance')]:
        values = [value for key, value in scores.items() if key.endswith(f'_{name}')]
        if values:
            scores[name] = float(np.mean(values))
    return scores


def first_positive_ranks(
    queries: np.ndarray, query_groups: np.ndarray, gallery: np.ndarray, gallery_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each query with a positive the rank of its closest one, from 1, and how many positives it has.

    Args:
      queries: `[Q, E]`.
      query_groups: `[Q]`.
      gallery: `[G, E]`.
      gallery_groups: `[G]`.
    """
    similarity = queries @ gallery.T
    positive = query_groups[:, None] == gallery_groups[None, :]
    asks = positive.any(axis=1)
    similarity, positive = similarity[asks], positive[asks]
    closest = np.max(np.where(positive, similarity, -np.inf), axis=1, initial=-np.inf)
    ranks = 1 + np.sum(~positive & (similarity >= closest[:, None]), axis=1)
    return ranks, positive.sum(axis=1)


def chance_recall(positives: np.ndarray, gallery_size: int) -> np.ndarray:
    """Returns `[Q, gallery_size]`: the probability that the first k items of a random order hold a positive.

    With G items and P positives it is 1 - C(G - P, k) / C(G, k), hypergeometric; column k - 1 is for k.
    """
    drawn = np.arange(gallery_size)[None, :]
    still_missed = np.clip((gallery_size - positives[:, None] - drawn) / (gallery_size - drawn), 0.0, None)
    return 1.0 - np.cumprod(still_missed, axis=1)


def _distinct(
    vectors: np.ndarray, valid: np.ndarray, group: np.ndarray, identity: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors and groups of the first row of each item."""
    rows = np.flatnonzero(valid)
    if identity is not None:
        rows = rows[np.unique(identity[rows], return_index=True)[1]]
    return np.asarray(vectors, np.float32)[rows], np.asarray(group)[rows]


def _summary(ranks: np.ndarray, positives: np.ndarray, gallery_size: int) -> dict[str, float]:
    by_chance = chance_recall(positives, gallery_size).mean(axis=0)
    summary = {}
    for k in KS:
        summary[f'r{k}'] = float(np.mean(ranks <= k))
        summary[f'r{k}_chance'] = float(by_chance[min(k, gallery_size) - 1])
    summary['median_rank'] = float(np.median(ranks))
    # The median of a random rank: the first k that chance reaches for half of the queries.
    summary['median_rank_chance'] = float(1 + np.argmax(by_chance >= 0.5 - 1e-12))
    return summary
