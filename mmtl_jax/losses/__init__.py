"""Losses: predictions and targets -> one loss per example, `[B]`; only what optax lacks."""

from mmtl_jax.losses.boxes import generalized_iou
from mmtl_jax.losses.classification import binary_cross_entropy, cross_entropy
from mmtl_jax.losses.contrastive import clip, siglip
from mmtl_jax.losses.ctc import ctc, feasible
from mmtl_jax.losses.detection import Assignment, assign, centre_focal, detection
from mmtl_jax.losses.keypoints import keypoint_cross_entropy
from mmtl_jax.losses.pixels import cosine_distance, dice, has_class, masked_error, pixel_cross_entropy, pixel_focal
from mmtl_jax.losses.regression import absolute_error, huber, squared_error
from mmtl_jax.losses.unlabelled import hide_unlabelled

__all__ = [
    'Assignment',
    'absolute_error',
    'assign',
    'binary_cross_entropy',
    'centre_focal',
    'clip',
    'cosine_distance',
    'cross_entropy',
    'ctc',
    'detection',
    'dice',
    'feasible',
    'generalized_iou',
    'has_class',
    'hide_unlabelled',
    'huber',
    'keypoint_cross_entropy',
    'masked_error',
    'pixel_cross_entropy',
    'pixel_focal',
    'siglip',
    'squared_error',
]
