"""Fusion by transformers that let each modality attend to each other one."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.tokens import Named, TokenFusion, presence
from mmtl_jax.fusion.vectors import one_token
from mmtl_jax.nn import fill_masked


class CrossAttention(TokenFusion):
    """Multimodal transformer (MulT; Tsai et al. 2019, 1906.00295, section 3).

    For each ordered pair of modalities, `depth` cross-attention layers in which the tokens of the target attend to the
    embedded tokens of the source; what a target got from all its sources stands side by side, goes through
    `self_depth` self-attention layers and is pooled; y = W_o (h + W_2 relu(W_1 h)), h the pooled targets side by side.

    The layers are pre-norm with plain residuals, as in the authors' code; `pooling` replaces the last token. An absent
    source leaves its target to the feed-forward layers; an absent target is zero in h. M (M - 1) transformers, each
    with the cost of the product of two numbers of tokens.

    Attributes:
      pooling: 'attention' or 'mean' pools the tokens of each target; 'none' hands on W_m of all of them, without h.
      depth: cross-attention layers for each ordered pair.
      self_depth: self-attention layers for each target.
      expansion: hidden width of the feed-forward layers over their input's.
    """

    least: ClassVar[int] = 2
    least_sizes: ClassVar[Mapping[str, int]] = {'self_depth': 0}

    depth: int = 2
    self_depth: int = 1
    expansion: int = 4

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token, or with the tokens of all modalities side by side."""
        tokens, masks = self.embed(features)
        heard = {target: self.listen(target, tokens, masks, train=train) for target in tokens}
        if self.pooling == 'none':
            out = {name: nn.Dense(self.width, dtype=self.dtype, name=f'out_{name}') for name in heard}
            return self.finish({name: out[name](x) for name, x in heard.items()}, masks)
        pooled = [self.pool(name, x, masks[name]) for name, x in heard.items()]
        present = presence(masks)
        joint = fill_masked(jnp.stack(pooled, axis=1), present).reshape(len(present), -1)
        return one_token(self.read_out(joint, train=train), present)

    def listen(self, target: str, tokens: Named, masks: Named, *, train: bool) -> Array:
        """Returns what `target` gets from all the others, `[B, N, (M - 1) width]`."""
        streams = []
        for source in tokens:
            if source == target:
                continue
            stream, name = tokens[target], f'{target}_from_{source}'
            for layer in range(self.depth):
                block = self.block(f'{name}_{layer}')
                stream, weights = block(stream, masks[source], tokens[source], train=train)
                self.record(weights, {target: stream.shape[1]}, {source: tokens[source].shape[1]})
            streams.append(self.norm(stream, f'{name}_norm'))
        joint = jnp.concatenate(streams, axis=-1)
        for layer in range(self.self_depth):
            joint, _ = self.block(f'{target}_{layer}')(joint, masks[target], train=train)
        return self.norm(joint, f'{target}_norm')

    def read_out(self, joint: Array, *, train: bool) -> Array:
        """Returns W_o (h + W_2 relu(W_1 h)), `[B, width]`, for h `[B, M (M - 1) width]`."""
        size = joint.shape[-1]
        hidden = nn.relu(nn.Dense(size, dtype=self.dtype, name='hidden')(joint))
        hidden = nn.Dropout(self.dropout_rate, deterministic=not train)(hidden)
        joint = joint + nn.Dense(size, dtype=self.dtype, name='residual')(hidden)
        return nn.Dense(self.width, dtype=self.dtype, name='joint')(joint)
