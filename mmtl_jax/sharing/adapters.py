"""A shared trunk with a small path for each task."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, each_stream

KINDS = ('film', 'low_rank')


class Adapters(CheckedModule):
    """A shared trunk, after each layer of which every task has a small path of its own, of one of two kinds.

    `'low_rank'`: y = x + U_t V_t x, with `rank` columns in U_t: the residual adapter (Rebuffi et al. 2017, 1705.08045,
    section 3) with matrices of low rank as in LoRA (2106.09685). `'film'`: y = (1 + g_t) * x + b_t by channel, the
    modulation of FiLM (Perez et al. 2018, 1709.07871, eq. 2) with the task for the condition.

    U_t, g_t and b_t start at zero: at first all tasks read the trunk. The trunk runs once for each task, for from the
    second layer on its inputs differ.

    Attributes:
      tasks: task names; the path of a task is at `<kind>_<task>_<layer>`.
      width: feature size D.
      kind: 'low_rank' or 'film'.
      rank: of the paths of low rank.
      depth: layers of the trunk, of the tokens and of each map; they are at `trunk_<layer>`.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    kind: str = 'low_rank'
    rank: int = 4
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features.

        Raises:
          ValueError: an unknown kind.
        """
        if self.kind not in KINDS:
            raise ValueError(f'Adapters: kind must be one of {KINDS}, got {self.kind!r}.')
        outputs = dict.fromkeys(self.tasks, features)
        for layer in range(self.depth):
            trunk = Branch(self.width, 1, self.dropout_rate, self.dtype, name=f'trunk_{layer}')
            # Below the first adapters the tasks have all in common.
            common = trunk(features, train=train) if layer == 0 else None
            for task in self.tasks:
                adapter = Adapter(self.kind, self.rank, self.dtype, name=f'{self.kind}_{task}_{layer}')
                outputs[task] = adapter(trunk(outputs[task], train=train) if layer else common)
        return outputs


class Adapter(nn.Module):
    """What a task changes in each stream.

    Attributes:
      kind: see `Adapters`.
      rank: see `Adapters`.
      dtype: of the arithmetic.
    """

    kind: str
    rank: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features) -> Features:
        """Returns Features of the same shapes."""
        return each_stream(self._film if self.kind == 'film' else self._low_rank, features)

    def _film(self, name: str, stream: Array) -> Array:
        shape = (1,) * (stream.ndim - 1) + stream.shape[-1:]
        gamma = self.param(f'gamma_{name}', nn.initializers.zeros, shape[-1:])
        beta = self.param(f'beta_{name}', nn.initializers.zeros, shape[-1:])
        gamma, beta, stream = promote_dtype(gamma, beta, stream, dtype=self.dtype)
        return (1 + gamma.reshape(shape)) * stream + beta.reshape(shape)

    def _low_rank(self, name: str, stream: Array) -> Array:
        down = nn.Dense(self.rank, use_bias=False, dtype=self.dtype, name=f'down_{name}')(stream)
        up = nn.Dense(
            stream.shape[-1],
            use_bias=False,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name=f'up_{name}',
        )
        return stream + up(down)
