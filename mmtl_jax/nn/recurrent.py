"""A masked LSTM, in one or both directions."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.masking import fill_masked


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) over sequences whose real steps come first.

    Attributes:
      width: size of the output; with two directions each has half of it (rounded up, then cut).
      bidirectional: whether a second LSTM reads from the last real step to the first.
      dtype: of the products with the weights; the state stays float32.
    """

    width: int
    bidirectional: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, steps: Array, mask: Array) -> Array:
        """Returns `[B, T, width]` for `steps` `[B, T, D]` and `mask` `[B, T]`; zero in masked steps."""
        # On CPU, multiplying all inputs ahead of the loop is no faster than this cell, which multiplies per step.
        if self.bidirectional:
            hidden = -(-self.width // 2)
            layer = nn.Bidirectional(self._direction(hidden), self._direction(hidden))
        else:
            layer = self._direction(self.width)
        outputs = layer(fill_masked(steps, mask), seq_lengths=jnp.sum(mask, axis=1))
        return fill_masked(outputs[..., : self.width], mask)

    def _direction(self, width: int) -> nn.RNN:
        return nn.RNN(nn.OptimizedLSTMCell(width, dtype=self.dtype))
