"""No sharing after fusion."""

import flax.linen as nn

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import MLP, fill_masked


class Branch(nn.Module):
    """An MLP and a LayerNorm."""

    width: int
    depth: int
    dropout_rate: float

    @nn.compact
    def __call__(self, tokens: Array, *, train: bool) -> Array:
        """Returns `[B, N, width]` for `tokens` `[B, N, D]`."""
        return nn.LayerNorm()(MLP(self.width, self.depth, self.dropout_rate)(tokens, train=train))


class Split(nn.Module):
    """One network per task: each task has an MLP of its own and shares nothing above the fusion.

    The parameters of a task are at `<task>`.

    Attributes:
      tasks: task names.
      width: feature size D.
      depth: layers per task.
      dropout_rate: dropout after each layer.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 1
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features."""
        shared = fill_masked(features.tokens, features.mask)
        outputs = {}
        for task in self.tasks:
            tokens = Branch(self.width, self.depth, self.dropout_rate, name=task)(shared, train=train)
            outputs[task] = features.replace(tokens=fill_masked(tokens, features.mask))
        return outputs
