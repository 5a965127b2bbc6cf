"""The encoder of features that were computed before, such as those of a frozen tower."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.nn import MLP, CheckedModule, fill_masked


class Precomputed(CheckedModule):
    """Normalises each feature vector, and projects it; by itself a linear probe.

    Attributes:
      width: feature size D.
      depth: hidden layers before the projection.
      input_dropout_rate: dropout on the normalised features.
      dropout_rate: dropout after each hidden layer, and on what is handed on.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    depth: int = 0
    input_dropout_rate: float = 0.0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Array | Ragged, *, train: bool) -> Features:
        """Returns Features with a token per vector.

        Args:
          features: `[B, F]`, one vector a row, or `[B, N, F]`, several; ragged where their number differs.
          train: whether dropout acts.

        Raises:
          ValueError: they are not floats of such a shape.
        """
        x = features.values if isinstance(features, Ragged) else features
        if x.ndim not in (2, 3) or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f'features must be floats [B, F] or [B, N, F], got {x.dtype} {x.shape}.')
        x = x[:, None] if x.ndim == 2 else x
        mask = features.mask if isinstance(features, Ragged) else jnp.ones(x.shape[:2], bool)
        x = nn.LayerNorm()(fill_masked(x, mask))
        x = nn.Dropout(self.input_dropout_rate, deterministic=not train)(x)
        x = MLP(self.width, self.depth, self.dropout_rate, self.dtype)(x, train=train)
        x = nn.LayerNorm()(nn.Dense(self.width, dtype=self.dtype)(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return Features(tokens=fill_masked(x, mask), mask=mask)
