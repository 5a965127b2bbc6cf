"""Fusion through a few tokens that all modalities share."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.tokens import TokenFusion, presence
from mmtl_jax.nn import masked_mean

BOTTLENECK = 'bottleneck'


class Bottleneck(TokenFusion):
    """Attention bottlenecks (MBT; Nagrani et al. 2021, 2107.00135, eq. 8 and 9).

    In every layer each modality has a transformer layer of its own, [x_m'; B_m] = T_m([x_m; B]), and the bottlenecks
    become the mean of the B_m over the modalities that the row has. The encoders are the paper's layers below L_f.

    As published, T_m lets all tokens of [x_m; B] attend to each other (`self_attention=True`), at a cost that grows
    with the square of a modality's tokens. Without, its tokens attend to the bottlenecks only, and the bottlenecks to
    both, like the inducing points of the Set Transformer (1810.00825): linear in the number of tokens.

    Attributes:
      depth: number of layers; with 1, modalities meet in the final mean only.
      expansion: hidden width of the feed-forward layers over `width`.
      num_bottlenecks: number of shared tokens.
      self_attention: whether the tokens of a modality attend to each other.
    """

    least: ClassVar[int] = 2

    depth: int = 2
    expansion: int = 4
    num_bottlenecks: int = 4
    self_attention: bool = False

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token, or with the tokens of all modalities side by side."""
        tokens, masks = self.embed(features)
        shape = (self.num_bottlenecks, self.width)
        shared = self.param(BOTTLENECK, nn.initializers.normal(0.02), shape)
        some = next(iter(tokens.values()))
        shared = jnp.broadcast_to(shared.astype(some.dtype)[None], (len(some), *shape))
        for layer in range(self.depth):
            heard = []
            for modality in tokens:
                tokens[modality], own = self.layer(
                    f'{modality}_{layer}', modality, tokens[modality], masks[modality], shared, train=train
                )
                heard.append(own)
            shared = average(jnp.stack(heard, axis=1), presence(masks))
        return self.finish({modality: self.norm(x, f'norm_{modality}') for modality, x in tokens.items()}, masks)

    def layer(
        self, name: str, modality: str, x: Array, mask: Array, shared: Array, *, train: bool
    ) -> tuple[Array, Array]:
        """Returns a modality's tokens and its bottlenecks after one layer."""
        block, length = self.block(name), x.shape[1]
        everyone = jnp.ones(shared.shape[:2], bool)
        joint, joint_mask = jnp.concatenate([x, shared], axis=1), jnp.concatenate([mask, everyone], axis=1)
        sizes = {modality: length, BOTTLENECK: self.num_bottlenecks}
        if self.self_attention:
            joint, weights = block(joint, joint_mask, train=train)
            self.record(weights, sizes, sizes)
            return joint[:, :length], joint[:, length:]
        new, weights = block(x, everyone, shared, train=train)
        self.record(weights, {modality: length}, {BOTTLENECK: self.num_bottlenecks})
        own, weights = block(shared, joint_mask, joint, train=train)
        self.record(weights, {BOTTLENECK: self.num_bottlenecks}, sizes)
        return new, own


def average(heard: Array, present: Array) -> Array:
    """Returns the mean of `heard` `[B, M, n, D]` over the modalities `present` `[B, M]`, `[B, n, D]`."""
    rows, count, *rest = heard.shape
    return masked_mean(heard.reshape(rows, count, -1), present).reshape(rows, *rest)
