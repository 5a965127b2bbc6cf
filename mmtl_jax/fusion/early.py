"""Fusion by one transformer over the tokens of all modalities."""

from collections.abc import Mapping

import flax.linen as nn

from mmtl_jax.core.types import Features
from mmtl_jax.fusion.tokens import TokenFusion, cut, lengths, side_by_side


class Early(TokenFusion):
    """`depth` transformer layers in which every token attends to the tokens of all modalities.

    Single-stream fusion, as in VisualBERT (1908.03557), here with pre-norm layers (2002.04745) and sinusoids. Time and
    memory grow with the square of the number of tokens. One modality alone is enough.

    Attributes:
      depth: number of transformer layers.
      expansion: hidden width of the feed-forward layers over `width`.
    """

    depth: int = 2
    expansion: int = 4

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> Features:
        """Returns Features with one token, or with the tokens of all modalities side by side."""
        tokens, masks = self.embed(features)
        sizes, mask = lengths(tokens), side_by_side(masks)
        joint = side_by_side(tokens)
        for layer in range(self.depth):
            joint, weights = self.block(f'layer_{layer}')(joint, mask, train=train)
            self.record(weights, sizes, sizes)
        return self.finish(cut(self.norm(joint, 'norm'), sizes), masks)
