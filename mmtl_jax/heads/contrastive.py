"""Modalities in one space, where what belongs together lies close."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule, at_least_float32, fill_masked, masked_mean

MAX_SCALE = 100.0


class Contrastive(CheckedModule):
    """Projects each modality into one space: `{modality: Features}` -> what `losses.clip` and `losses.siglip` take.

    The predictions are `embeddings` {modality: `[B, width]`, of length 1}, `valid` {modality: `[B]` bool, the row has
    the modality}, the scalar `scale` (one over the temperature) that multiplies cosines, and, with `init_bias`, the
    scalar `bias` that is added to them. CLIP (Radford et al., 2103.00020) learns the logarithm of the scale from
    log(1 / .07) and clips the scale at 100; SigLIP (Zhai et al., 2303.15343) starts from a scale of 10 and a bias of
    -10. The gradient passes the clip unchanged, so that a scale that hit the bound can come back.

    Attributes:
      width: size of the common space.
      modalities: which modalities to project; empty for all that the head is given.
      init_temperature: temperature at the start.
      init_bias: bias at the start; None for no bias.
      hidden: sizes of hidden layers, applied to every token before the mean; with one, the mean can say which sounds
        or words occur, where the mean of the tokens themselves blurs them.
      dropout_rate: applied to the mean.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    width: int = 128
    modalities: tuple[str, ...] = ()
    init_temperature: float = 0.07
    init_bias: float | None = None
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Mapping[str, Features], *, train: bool) -> dict[str, Array | dict[str, Array]]:
        """Returns `embeddings`, `valid`, `scale` and, with `init_bias`, `bias`."""
        if isinstance(features, Features) or len(features) < 2:
            got = 'one' if isinstance(features, Features) else sorted(features)
            raise ValueError(f'Contrastive compares modalities and needs at least two, got {got}.')
        modalities = self.modalities or tuple(sorted(features))
        missing = [modality for modality in modalities if modality not in features]
        if missing:
            raise ValueError(f'Contrastive needs the modality {missing[0]!r}, got {sorted(features)}.')
        embeddings, valid = {}, {}
        for modality in modalities:
            tokens = fill_masked(features[modality].tokens, features[modality].mask)
            for index, size in enumerate(self.hidden):
                tokens = nn.gelu(nn.Dense(size, dtype=self.dtype, name=f'{modality}_hidden_{index}')(tokens))
            mean = masked_mean(tokens, features[modality].mask)
            mean = nn.Dropout(self.dropout_rate, deterministic=not train)(mean)
            embedding = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=modality)(mean)
            embeddings[modality] = unit_length(at_least_float32(embedding))
            valid[modality] = jnp.any(features[modality].mask, axis=-1)
        log_scale = self.param('log_scale', nn.initializers.constant(-math.log(self.init_temperature)), ())
        excess = jax.lax.stop_gradient(jnp.maximum(log_scale - math.log(MAX_SCALE), 0))
        predictions = {'embeddings': embeddings, 'valid': valid, 'scale': jnp.exp(log_scale - excess)}
        if self.init_bias is not None:
            predictions['bias'] = self.param('bias', nn.initializers.constant(self.init_bias), ())
        return predictions


def unit_length(vectors: Array) -> Array:
    """Returns the vectors divided by their length; a zero vector stays zero, with a finite gradient."""
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)
