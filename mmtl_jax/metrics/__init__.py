"""Metrics: of a batch as (sum, count), and scores of a whole split and of a whole model on the host."""

from mmtl_jax.metrics.batch import classification, multilabel, regression, weighted
from mmtl_jax.metrics.comparison import delta_m
from mmtl_jax.metrics.corpus import confusion_matrix, f1, r2, ranking
from mmtl_jax.metrics.retrieval import KS, chance_recall, first_positive_ranks, retrieval
from mmtl_jax.metrics.transcription import error_rates

__all__ = [
    'KS',
    'chance_recall',
    'classification',
    'confusion_matrix',
    'delta_m',
    'error_rates',
    'f1',
    'first_positive_ranks',
    'multilabel',
    'r2',
    'ranking',
    'regression',
    'retrieval',
    'weighted',
]
