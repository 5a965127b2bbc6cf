"""Cross-stitch networks."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, across_tasks


class CrossStitch(CheckedModule):
    """One network per task, and after each layer x_t <- sum_j A_tj x_j (Misra et al. 2016, 1604.03539, eq. 1).

    Each layer has such a matrix for every channel of the tokens and of each map. With the identity for A the scheme is
    `Split`. The authors train A with a higher learning rate than the networks.

    Attributes:
      tasks: task names; the networks are at `<task>_<layer>`, the matrices at `stitch_<layer>_<stream>`.
      width: feature size D.
      depth: layers per task, of the tokens and of each map.
      own: A_tt at the start; the others share the rest, so that each row of A has the sum 1. LibMTL starts from 1
        everywhere, the sum of all tasks.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 1
    own: float = 0.9
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features."""
        outputs = dict.fromkeys(self.tasks, features)
        for layer in range(self.depth):
            outputs = {
                task: Branch(self.width, 1, self.dropout_rate, self.dtype, name=f'{task}_{layer}')(
                    outputs[task], train=train
                )
                for task in self.tasks
            }

            def stitch(name: str, stream: Array, layer: int = layer) -> Array:
                shape = (len(self.tasks), len(self.tasks), stream.shape[-1])
                matrix = self.param(f'stitch_{layer}_{name}', first_stitches, shape, self.own)
                matrix, stream = promote_dtype(matrix, stream, dtype=self.dtype)
                return jnp.einsum('tjc,j...c->t...c', matrix, stream)

            outputs = across_tasks(stitch, outputs)
        return outputs


def first_stitches(key: Array, shape: tuple[int, int, int], own: float) -> Array:
    """Returns `[T, T, C]` with `own` on the diagonals, and rows of sum 1."""
    num_tasks = shape[0]
    others = (1 - own) / max(num_tasks - 1, 1)
    matrix = jnp.where(jnp.eye(num_tasks, dtype=bool), own if num_tasks > 1 else 1.0, others)
    return jnp.broadcast_to(matrix[..., None], shape)
