"""Fusion of pairs of modalities, and then of all."""

import itertools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.vectors import VectorFusion
from mmtl_jax.nn import masked_softmax


class Hierarchical(VectorFusion):
    """y = W_o sum_S alpha_S u_S: single modalities, pairs of them, and attention over all these nodes.

    u_m = W_m h_m, and u_mn = tanh(W_mn [u_m; u_n]) for a pair, as in hierarchical fusion (Majumder et al. 2018,
    1806.06228), whose last level is tanh(W [u_12; u_13; u_23]). Here alpha = softmax(v · u_S) runs over the nodes of
    which the row has all modalities, so that a row with some of them gets the formula of those; a weight for each node
    is what the dynamic fusion graph has (Zadeh et al., ACL 2018). All W have biases; v starts at 0: equal weights.

    `node_weights` among the `intermediates` is {node: alpha `[B]`}, where a pair is named as in 'audio+image'.
    """

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.project(features)
        modalities = sorted(features)
        nodes = {modality: vectors[:, index] for index, modality in enumerate(modalities)}
        real = {modality: present[:, index] for index, modality in enumerate(modalities)}
        for left, right in itertools.combinations(modalities, 2):
            pair = jnp.concatenate([nodes[left], nodes[right]], axis=-1)
            joined = nn.Dense(self.width, dtype=self.dtype, name=f'pair_{left}_{right}')(pair)
            nodes[f'{left}+{right}'] = jnp.tanh(joined)
            real[f'{left}+{right}'] = real[left] & real[right]
        stacked = jnp.stack([*nodes.values()], axis=1)
        # No bias: a softmax does not see a constant.
        scores = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, dtype=self.dtype, name='scores')(
            stacked
        )[..., 0]
        weights = masked_softmax(scores, jnp.stack([*real.values()], axis=1))
        named = {node: weights[:, index] for index, node in enumerate(nodes)}
        self.sow('intermediates', 'node_weights', jax.lax.stop_gradient(named))
        fused = nn.Dense(self.width, dtype=self.dtype, name='joint')(jnp.einsum('bs,bsd->bd', weights, stacked))
        return self.one_token(fused, present, train=train)
