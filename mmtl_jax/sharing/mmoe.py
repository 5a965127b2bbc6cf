"""Multi-gate mixture of experts."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, mix
from mmtl_jax.sharing.gate import Gate


class MMoE(CheckedModule):
    """Multi-gate mixture of experts: z_t = sum_k softmax(W_t x)_k f_k(x) (Ma et al., KDD 2018).

    The gate sees x as the mean of the real tokens. With one expert there is no gate, and the scheme is `Hard` with a
    trunk of the same depth.

    Attributes:
      tasks: task names; the gate of a task is at `gate_<task>`.
      width: feature size D.
      num_experts: K.
      depth: layers of each expert, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`, but for the gates; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    num_experts: int = 4
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's mixture."""
        experts = [
            Branch(self.width, self.depth, self.dropout_rate, self.dtype, name=f'expert_{index}')(features, train=train)
            for index in range(self.num_experts)
        ]
        return {task: mix(Gate(self.num_experts, name=f'gate_{task}')(features), experts) for task in self.tasks}
