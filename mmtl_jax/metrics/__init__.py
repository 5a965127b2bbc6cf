"""Metrics: of a batch as (sum, count), and scores of a whole split and of a whole model on the host."""

from mmtl_jax.metrics.batch import classification, multilabel, regression, weighted
from mmtl_jax.metrics.calibration import Reliability, calibration, reliability
from mmtl_jax.metrics.comparison import delta_m, higher_is_better
from mmtl_jax.metrics.corpus import confusion_matrix, f1, r2, ranking
from mmtl_jax.metrics.detection import mean_average_precision, require_pycocotools
from mmtl_jax.metrics.keypoints import keypoints
from mmtl_jax.metrics.pixels import dense_errors, depth, normals, pixel_confusion, segmentation
from mmtl_jax.metrics.retrieval import KS, chance_recall, first_positive_ranks, retrieval
from mmtl_jax.metrics.robustness import effective_robustness, relative_robustness
from mmtl_jax.metrics.shapley import shapley_values
from mmtl_jax.metrics.transcription import error_rates

__all__ = [
    'KS',
    'Reliability',
    'calibration',
    'chance_recall',
    'classification',
    'confusion_matrix',
    'delta_m',
    'dense_errors',
    'depth',
    'effective_robustness',
    'error_rates',
    'f1',
    'first_positive_ranks',
    'higher_is_better',
    'keypoints',
    'mean_average_precision',
    'multilabel',
    'normals',
    'pixel_confusion',
    'r2',
    'ranking',
    'regression',
    'relative_robustness',
    'reliability',
    'require_pycocotools',
    'retrieval',
    'segmentation',
    'shapley_values',
    'weighted',
]
