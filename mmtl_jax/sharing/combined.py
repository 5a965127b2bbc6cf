"""One joint output space."""

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, each_stream


class Combined(CheckedModule):
    """One network with one output for all tasks: [z_1; ...; z_T] = LayerNorm(W f(x)), of which task t reads z_t.

    The output space of T * D entries is normalised as one, so that what a task puts into its part it takes from the
    scale of the others.

    Attributes:
      tasks: task names.
      width: feature size D of each task's part.
      depth: layers of the network f below the joint output, of the tokens and of each map.
      dropout_rate: dropout after each of them.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's part of the joint output."""
        shared = Branch(self.width, self.depth, self.dropout_rate, self.dtype, name='trunk')(features, train=train)

        def joint(name: str, stream: Array) -> Array:
            outputs = nn.Dense(len(self.tasks) * stream.shape[-1], dtype=self.dtype, name=f'joint_{name}')(stream)
            return nn.LayerNorm(dtype=self.dtype, name=f'norm_{name}')(outputs)

        outputs = each_stream(joint, shared)
        return {
            task: each_stream(lambda _, stream, part=part: jnp.split(stream, len(self.tasks), axis=-1)[part], outputs)
            for part, task in enumerate(self.tasks)
        }
