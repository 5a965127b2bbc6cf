"""Balancing: how much each task counts in the gradient of the shared parameters."""

from mmtl_jax.balancing.base import Balancer, Signals
from mmtl_jax.balancing.static import equal, fixed, scheduled
from mmtl_jax.balancing.uncertainty import uncertainty

__all__ = ['Balancer', 'Signals', 'equal', 'fixed', 'scheduled', 'uncertainty']
