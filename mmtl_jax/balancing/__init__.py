"""Balancing: how much each task counts in the gradient of the shared parameters."""

from mmtl_jax.balancing.aggregate import aggregate
from mmtl_jax.balancing.base import Balancer, Rows, Signals, from_weighting
from mmtl_jax.balancing.static import equal, fixed, scheduled
from mmtl_jax.balancing.uncertainty import uncertainty

__all__ = ['Balancer', 'Rows', 'Signals', 'aggregate', 'equal', 'fixed', 'from_weighting', 'scheduled', 'uncertainty']
