"""Encoders of table rows: `[B, F]` with NaN for a missing cell to Features with one token."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import MLP, CheckedModule


class TabularMLP(CheckedModule):
    """An MLP over the cells of a row; a missing cell becomes a learned value, and an indicator says so.

    Attributes:
      width: feature size D.
      depth: hidden layers.
      dropout_rate: dropout after each hidden layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    depth: int = 2
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, table: Array, *, train: bool) -> Features:
        """Returns Features with one token per row.

        Raises:
          ValueError: the input is not `[B, F]` of floats.
        """
        if table.ndim != 2 or not jnp.issubdtype(table.dtype, jnp.floating):
            raise ValueError(f'a table must be floats [B, F] with NaN for missing, got {table.dtype} {table.shape}.')
        missing = jnp.isnan(table)
        learned = self.param('missing', nn.initializers.zeros, (table.shape[1],))
        cells = jnp.where(missing, learned[None], table)
        x = jnp.concatenate([cells, missing.astype(cells.dtype)], axis=-1)
        x = MLP(self.width, self.depth, self.dropout_rate, self.dtype)(x, train=train)
        tokens = nn.LayerNorm()(nn.Dense(self.width, dtype=self.dtype)(x))[:, None]
        return Features(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool))
