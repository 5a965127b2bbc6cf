"""Fusion by one attention layer between modalities."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.tokens import TokenFusion, lengths, side_by_side
from mmtl_jax.nn import Attention


class NonLocalGate(TokenFusion):
    """z_m = x_m + W_z softmax(θ(x_m) φ(x_r)ᵀ / sqrt(d)) g(x_r), x_r the tokens of all the other modalities.

    The embedded Gaussian of a non-local block (Wang et al. 2018, 1711.07971, eq. 3 and 6) between modalities, the
    NL-gate of MultiBench (2107.07502), where one of two modalities asks and the other answers. Here each asks the
    others, and the scores are divided by sqrt(d). Without any other modality z_m = x_m.

    Attributes:
      dropout_rate: dropout on the attention weights, and on z.
    """

    least: ClassVar[int] = 2

    num_heads: int = 1

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token, or with the tokens of all modalities side by side."""
        tokens, masks = self.embed(features, positions=False)
        sizes, gated = lengths(tokens), {}
        for modality, x in tokens.items():
            others = [name for name in tokens if name != modality]
            context = side_by_side({name: tokens[name] for name in others})
            mask = side_by_side({name: masks[name] for name in others})
            attention = Attention(self.num_heads, self.dropout_rate, self.dtype, name=f'gate_{modality}')
            attended, weights = attention(x, context, mask, train=train)
            self.record(weights, {modality: sizes[modality]}, {name: sizes[name] for name in others})
            gated[modality] = nn.Dropout(self.dropout_rate, deterministic=not train)(x + attended)
        return self.finish(gated, masks)
