"""No sharing after fusion."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch


class Split(CheckedModule):
    """One network per task: each task has an MLP of its own and shares nothing above the fusion.

    The parameters of a task are at `<task>`.

    Attributes:
      tasks: task names.
      width: feature size D.
      depth: layers per task, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features."""
        return {
            task: Branch(self.width, self.depth, self.dropout_rate, self.dtype, name=task)(features, train=train)
            for task in self.tasks
        }
