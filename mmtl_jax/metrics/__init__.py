"""Metrics: of a batch as (sum, count), and scores of a whole split on the host."""

from mmtl_jax.metrics.batch import (
    accuracy,
    exact_match,
    label_accuracy,
    mean_absolute_error,
    mean_squared_error,
    top_k,
    weighted,
)
from mmtl_jax.metrics.corpus import confusion_matrix, f1, r2, ranking
from mmtl_jax.metrics.retrieval import KS, chance_recall, first_positive_ranks, retrieval
from mmtl_jax.metrics.transcription import error_rates

__all__ = [
    'KS',
    'accuracy',
    'chance_recall',
    'confusion_matrix',
    'error_rates',
    'exact_match',
    'f1',
    'first_positive_ranks',
    'label_accuracy',
    'mean_absolute_error',
    'mean_squared_error',
    'r2',
    'ranking',
    'retrieval',
    'top_k',
    'weighted',
]
