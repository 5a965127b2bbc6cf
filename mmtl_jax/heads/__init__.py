"""Heads: `Features` -> predictions, one file per kind of output."""

from mmtl_jax.heads.classification import Classification
from mmtl_jax.heads.contrastive import Contrastive
from mmtl_jax.heads.ctc import CTC
from mmtl_jax.heads.multilabel import MultiLabel
from mmtl_jax.heads.regression import Regression

__all__ = ['CTC', 'Classification', 'Contrastive', 'MultiLabel', 'Regression']
