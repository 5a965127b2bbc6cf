"""Attention between the tasks."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule, at_least_float32
from mmtl_jax.sharing.branch import Branch, across_tasks


class TaskAttention(CheckedModule):
    """Each task attends to the features of the others, at the same token or cell.

    With h_t the output of task t's own network, at every position and for every attention head

        z_t = h_t + O_t sum_{j != t} w_tj V_j h_j,   w_tj = exp(s_tj) / (1 + sum_{i != t} exp(s_ti)),
        s_tj = (Q_t h_t) . (K_j h_j) / sqrt(d).

    The query of the target task against the keys of the source tasks is that of ATRC (Bruggemann et al. 2021,
    2104.13874), here at one position instead of a neighbourhood of it, with one key and one value for all targets; the
    sum that is added to a task's own features is the distillation of PAD-Net (Xu et al. 2018, 1805.04409). The 1 in the
    denominator lets a task attend to none: without it, the weights of two tasks would always be 1.

    Attributes:
      tasks: task names; the network of a task is at `<task>`.
      width: feature size D.
      depth: layers per task below the attention, of the tokens and of each map.
      num_heads: attention heads. The size of a head is the channels over `num_heads`, rounded up.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`, but for the softmax; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 1
    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features with what it took from the others."""
        outputs = {
            task: Branch(self.width, self.depth, self.dropout_rate, self.dtype, name=task)(features, train=train)
            for task in self.tasks
        }
        return across_tasks(self._attend, outputs) if len(self.tasks) > 1 else outputs

    def _attend(self, name: str, stream: Array) -> Array:
        """Returns `[T, ..., C]` for `stream` `[T, ..., C]`."""
        dense = functools.partial(nn.DenseGeneral, dtype=self.dtype)
        head_width = math.ceil(stream.shape[-1] / self.num_heads)

        def project(what: str) -> Array:
            """Returns `[T, ..., heads, head_width]`."""
            projected = [
                dense((self.num_heads, head_width), use_bias=False, name=f'{what}_{task}_{name}')(own)
                for task, own in zip(self.tasks, stream, strict=True)
            ]
            return jnp.stack(projected)

        query, key, value = (project(what) for what in ('query', 'key', 'value'))
        scores = at_least_float32(jnp.einsum('t...hd,j...hd->...htj', query, key)) / math.sqrt(head_width)
        # A task's own place, with score 0 and value 0, stands for none of the others.
        own = jnp.eye(len(self.tasks), dtype=bool).reshape((1,) * (scores.ndim - 2) + (len(self.tasks),) * 2)
        weights = jnp.where(own, 0, jax.nn.softmax(jnp.where(own, 0, scores)))
        attended = jnp.einsum('...htj,j...hd->t...hd', weights.astype(value.dtype), value)
        taken = [
            dense(stream.shape[-1], axis=(-2, -1), name=f'output_{task}_{name}')(own)
            for task, own in zip(self.tasks, attended, strict=True)
        ]
        return stream + jnp.stack(taken)
