"""Balancing: how much each task counts in the gradient of the shared parameters."""

from mmtl_jax.balancing.aggregate import aggregate
from mmtl_jax.balancing.alignment import aligned_mtl
from mmtl_jax.balancing.bargaining import fairgrad, nash_mtl
from mmtl_jax.balancing.base import Balancer, Rows, Signals, from_weighting
from mmtl_jax.balancing.conflict_averse import cagrad
from mmtl_jax.balancing.double_sampling import modo, sdmgrad
from mmtl_jax.balancing.dual_cone import dual_projection, upgrad
from mmtl_jax.balancing.dwa import dwa
from mmtl_jax.balancing.equiangular import conflict_free, imtl, imtl_g
from mmtl_jax.balancing.excess_risk import excess_mtl
from mmtl_jax.balancing.famo import famo
from mmtl_jax.balancing.gradient_blend import blend_weights, gradient_blend
from mmtl_jax.balancing.gradnorm import gradnorm
from mmtl_jax.balancing.imtl_l import imtl_l
from mmtl_jax.balancing.minimum_norm import mgda
from mmtl_jax.balancing.per_group import per_group
from mmtl_jax.balancing.priority import dynamic_task_priority
from mmtl_jax.balancing.random_gradients import random
from mmtl_jax.balancing.random_loss_weighting import random_loss_weighting
from mmtl_jax.balancing.robust import krum, trimmed_mean
from mmtl_jax.balancing.scalarization import cosmos, gls, pbi, stch
from mmtl_jax.balancing.sign_dropout import graddrop
from mmtl_jax.balancing.static import equal, fixed, scheduled
from mmtl_jax.balancing.surgery import gradvac, pcgrad
from mmtl_jax.balancing.tracking import db_mtl, moco
from mmtl_jax.balancing.uncertainty import uncertainty
from mmtl_jax.balancing.wrappers import clip_norm, ema, every

__all__ = [
    'Balancer',
    'Rows',
    'Signals',
    'aggregate',
    'aligned_mtl',
    'blend_weights',
    'cagrad',
    'clip_norm',
    'conflict_free',
    'cosmos',
    'db_mtl',
    'dual_projection',
    'dwa',
    'dynamic_task_priority',
    'ema',
    'equal',
    'every',
    'excess_mtl',
    'fairgrad',
    'famo',
    'fixed',
    'from_weighting',
    'gls',
    'graddrop',
    'gradient_blend',
    'gradnorm',
    'gradvac',
    'imtl',
    'imtl_g',
    'imtl_l',
    'krum',
    'mgda',
    'moco',
    'modo',
    'nash_mtl',
    'pbi',
    'pcgrad',
    'per_group',
    'random',
    'random_loss_weighting',
    'scheduled',
    'sdmgrad',
    'stch',
    'trimmed_mean',
    'uncertainty',
    'upgrad',
]
