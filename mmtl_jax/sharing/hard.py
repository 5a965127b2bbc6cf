"""Hard parameter sharing."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.nn import CheckedModule, fill_masked
from mmtl_jax.sharing.branch import Branch


class Hard(CheckedModule):
    """Every task gets the same Features (Caruana 1997), after a shared trunk if `depth` is not 0.

    Attributes:
      tasks: task names.
      width: feature size D; features of another width are projected to it.
      depth: layers of the shared trunk, of the tokens and of each map.
      dropout_rate: dropout after each of them.
      dtype: of the trunk, or of the projection, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns the shared Features by task."""
        tokens = fill_masked(features.tokens, features.mask)
        if self.depth:
            shared = Branch(self.width, self.depth, self.dropout_rate, self.dtype, name='trunk')(features, train=train)
        elif tokens.shape[-1] != self.width:
            tokens = nn.Dense(self.width, dtype=self.dtype, name='project')(tokens)
            shared = features.replace(tokens=fill_masked(tokens, features.mask))
        else:
            shared = features.replace(tokens=tokens)
        return dict.fromkeys(self.tasks, shared)
