"""Fusion by a few learned queries that read the tokens of all modalities."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.tokens import TokenFusion, lengths, presence, side_by_side

LATENTS = 'latents'


class Perceiver(TokenFusion):
    """Learned latents read all tokens by cross-attention, then attend to each other (Jaegle et al. 2021, 2103.03206).

    z <- z + attention(z, [x_1; ...; x_M]) and a feed-forward layer, then `depth` self-attention layers on z; all this
    `num_reads` times with the same parameters. Time and memory are linear in the number of tokens. One modality alone
    is enough.

    Attributes:
      pooling: 'attention' or 'mean' over the latents; 'none' hands them on as tokens.
      depth: number of self-attention layers after each read.
      expansion: hidden width of the feed-forward layers over `width`.
      num_latents: number of latents.
      num_reads: how often the latents read the tokens.
    """

    depth: int = 2
    expansion: int = 4
    num_latents: int = 16
    num_reads: int = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token, or with `num_latents` of them."""
        tokens, masks = self.embed(features)
        joint, mask = side_by_side(tokens), side_by_side(masks)
        shape = (self.num_latents, self.width)
        # The paper's 0.02; LayerNorm makes of it what the scale of the tokens is.
        latents = self.param(LATENTS, nn.initializers.normal(0.02), shape).astype(joint.dtype)
        latents = jnp.broadcast_to(latents[None], (len(joint), *shape))
        real = jnp.broadcast_to(jnp.any(presence(masks), axis=1, keepdims=True), latents.shape[:2])
        read, layers = self.block('read'), [self.block(f'layer_{layer}') for layer in range(self.depth)]
        for _ in range(self.num_reads):
            latents, weights = read(latents, mask, joint, train=train)
            self.record(weights, {LATENTS: self.num_latents}, lengths(tokens))
            for layer in layers:
                latents, _ = layer(latents, real, train=train)
        return self.finish({LATENTS: self.norm(latents, 'norm')}, {LATENTS: real})
