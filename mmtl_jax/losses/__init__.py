"""Losses: predictions and targets -> one loss per example, `[B]`; only what optax lacks."""

from mmtl_jax.losses.classification import binary_cross_entropy, cross_entropy
from mmtl_jax.losses.contrastive import clip, siglip
from mmtl_jax.losses.ctc import ctc, feasible
from mmtl_jax.losses.regression import absolute_error, huber, squared_error
from mmtl_jax.losses.unlabelled import hide_unlabelled

__all__ = [
    'absolute_error',
    'binary_cross_entropy',
    'clip',
    'cross_entropy',
    'ctc',
    'feasible',
    'hide_unlabelled',
    'huber',
    'siglip',
    'squared_error',
]
