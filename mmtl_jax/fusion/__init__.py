"""Floor 2: fusions, `{modality: Features}` to Features.

A fusion is a linen module `(features, *, train) -> Features` with a field `width`. It takes any number of modalities
and any missing subset: an absent modality is an all-False row of its mask.
"""

from mmtl_jax.fusion.autoencoder import Autoencoder
from mmtl_jax.fusion.bilinear import MFB, MLB, MUTAN
from mmtl_jax.fusion.bottleneck import Bottleneck
from mmtl_jax.fusion.cross_attention import CrossAttention
from mmtl_jax.fusion.decision import DecisionAverage, DecisionWeighted, ProductOfExperts, Stacking
from mmtl_jax.fusion.deep_belief_network import DeepBeliefNetwork
from mmtl_jax.fusion.deep_cca import DeepCCA
from mmtl_jax.fusion.early import Early
from mmtl_jax.fusion.factorized import Factorized
from mmtl_jax.fusion.film import FiLM
from mmtl_jax.fusion.gated import Gated
from mmtl_jax.fusion.hierarchical import Hierarchical
from mmtl_jax.fusion.matrix_factorization import MatrixFactorization
from mmtl_jax.fusion.multiplicative import Multiplicative
from mmtl_jax.fusion.non_local_gate import NonLocalGate
from mmtl_jax.fusion.perceiver import Perceiver
from mmtl_jax.fusion.simple import Concat, Mean, Sum, Weighted
from mmtl_jax.fusion.tensor import LowRank, TensorFusion
from mmtl_jax.fusion.variational import Variational

__all__ = [
    'MFB',
    'MLB',
    'MUTAN',
    'Autoencoder',
    'Bottleneck',
    'Concat',
    'CrossAttention',
    'DecisionAverage',
    'DecisionWeighted',
    'DeepBeliefNetwork',
    'DeepCCA',
    'Early',
    'Factorized',
    'FiLM',
    'Gated',
    'Hierarchical',
    'LowRank',
    'MatrixFactorization',
    'Mean',
    'Multiplicative',
    'NonLocalGate',
    'Perceiver',
    'ProductOfExperts',
    'Stacking',
    'Sum',
    'TensorFusion',
    'Variational',
    'Weighted',
]
