"""Heads: `Features` -> predictions, one file per kind of output."""

from mmtl_jax.heads.classification import Classification
from mmtl_jax.heads.contrastive import Contrastive
from mmtl_jax.heads.ctc import CTC
from mmtl_jax.heads.dense_regression import DenseRegression
from mmtl_jax.heads.detection import Detection
from mmtl_jax.heads.keypoints import Keypoints
from mmtl_jax.heads.multilabel import MultiLabel
from mmtl_jax.heads.regression import Regression
from mmtl_jax.heads.segmentation import Segmentation

__all__ = [
    'CTC',
    'Classification',
    'Contrastive',
    'DenseRegression',
    'Detection',
    'Keypoints',
    'MultiLabel',
    'Regression',
    'Segmentation',
]
