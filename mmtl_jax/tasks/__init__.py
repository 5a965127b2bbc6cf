"""Tasks: data that says how to answer a question, learn from its label, and score the answers.

A factory makes a `Task` from plain values, and raises a `ValueError` that names the task for those that do not fit.
"""

from mmtl_jax.tasks.auxiliary import auxiliary
from mmtl_jax.tasks.base import Scorer, Task, primaries_of
from mmtl_jax.tasks.contrastive import contrastive
from mmtl_jax.tasks.ctc import ctc
from mmtl_jax.tasks.dense_regression import dense_regression
from mmtl_jax.tasks.detection import detection
from mmtl_jax.tasks.keypoints import keypoints
from mmtl_jax.tasks.labels import classification, multilabel
from mmtl_jax.tasks.regression import regression
from mmtl_jax.tasks.segmentation import segmentation

__all__ = [
    'Scorer',
    'Task',
    'auxiliary',
    'classification',
    'contrastive',
    'ctc',
    'dense_regression',
    'detection',
    'keypoints',
    'multilabel',
    'primaries_of',
    'regression',
    'segmentation',
]
