"""Fusion by gates that the modalities set together."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import VectorFusion, sow_weights
from mmtl_jax.nn import fill_masked, masked_softmax


class Gated(VectorFusion):
    """Gated multimodal unit (GMU; Arevalo et al. 2017, 1702.01992, figure 2).

    Two modalities: y = z * tanh(W_1 h_1) + (1 - z) * tanh(W_2 h_2), z = sigmoid(W_z [h_1; h_2]).
    More of them: y = sum_m z_m * tanh(W_m h_m), z_m = sigmoid(W_zm [h_1; ...; h_M]).

    All maps have biases here. An absent modality is zero in the gates and not in the sum; of two modalities the other
    one then has the gate 1, for z and 1 - z are a softmax over those that are there.
    """

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token `[B, 1, width]`."""
        vectors, present = self.pool(features)
        candidates = [
            jnp.tanh(nn.Dense(self.width, dtype=self.dtype, name=f'project_{modality}')(vector))
            for modality, vector in vectors.items()
        ]
        gates = self.gates(jnp.concatenate([*vectors.values()], axis=-1), present)
        sow_weights(self, features, jnp.mean(gates, axis=-1))
        return self.one_token(jnp.sum(gates * jnp.stack(candidates, axis=1), axis=1), present, train=train)

    def gates(self, joint: Array, present: Array) -> Array:
        """Returns z `[B, M, width]` for `joint` `[B, sum of the D_m]`; zero where a modality is not `present`."""
        count = present.shape[1]
        logits = nn.Dense(self.width * (count if count > 2 else 1), dtype=self.dtype, name='gates')(joint)
        logits = logits.reshape(len(joint), -1, self.width)
        if count > 2:
            return fill_masked(jax.nn.sigmoid(logits), present)
        both = jnp.concatenate([logits, jnp.zeros_like(logits)], axis=1)
        return jnp.swapaxes(masked_softmax(jnp.swapaxes(both, 1, 2), present[:, None]), 1, 2)
