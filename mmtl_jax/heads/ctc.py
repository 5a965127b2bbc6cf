"""A sequence of symbols without alignment, such as a transcript."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.readout import Readout
from mmtl_jax.nn import CheckedModule, fill_masked


class CTC(CheckedModule):
    """A distribution over symbols per token: `Features` -> `{'logits' [B, N, vocab_size], 'mask' [B, N]}`.

    Id 0 is the blank of Connectionist Temporal Classification (Graves et al., ICML 2006). The tokens must keep the
    order of time, as those of an audio encoder do.

    Attributes:
      vocab_size: number of symbols, blank included.
      hidden: sizes of hidden layers; none gives a linear readout.
      dropout_rate: applied to the input of every layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    vocab_size: int
    hidden: tuple[int, ...] = ()
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Array]:
        """Returns `{'logits': [B, N, vocab_size], 'mask': [B, N]}`."""
        if not isinstance(features, Features):
            raise ValueError(f'CTC reads one sequence, got the modalities {sorted(features)}; name one of them.')
        tokens = fill_masked(features.tokens, features.mask)
        logits = Readout(self.vocab_size, self.hidden, self.dropout_rate, self.dtype)(tokens, train=train)
        return {'logits': logits, 'mask': features.mask}
