"""The multi-task attention network."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule, conv_kernel, fill_masked
from mmtl_jax.sharing.branch import Layers


class MTAN(CheckedModule):
    """Tasks select from one network by attention masks, stage by stage (Liu et al. 2019, 1803.10704, section 3).

    For stage s of the network, with output p_s, and task t

        a = sigmoid(W_2 relu(norm(W_1 [p_s; f(z_{s-1})]))),    z_s = a * p_s,

    W_1 and W_2 of each task and by position (1x1 convolutions), and one f for all tasks. The stages are the encoder's,
    whose maps these are, finest first, and then `depth` layers on the tokens. Between two maps f is a 3x3 convolution,
    normalised, with ReLU, brought to the size of the next map; from the last map to the tokens it is the mean over
    space; between layers on tokens nothing.

    The paper has the output of a stage's first convolution in place of the p_s that the mask is computed from, which an
    encoder does not hand on, and BatchNorm for the LayerNorm here, by which no row depends on the others of its batch.

    Attributes:
      tasks: task names; the masks of a task are at `<task>_<stage>`, and the f before a stage at `passage_<stage>`.
      width: feature size D.
      depth: shared layers on the tokens, at `trunk_<layer>`.
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
        """Returns each task's Features: the masked maps and the masked output of the last layer."""
        stages, stream = list(features.maps), fill_masked(features.tokens, features.mask)
        for layer in range(self.depth):
            stream = Layers(self.width, 1, self.dropout_rate, self.dtype, name=f'trunk_{layer}')(stream, train=train)
            stages.append(fill_masked(stream, features.mask))
        selected = {task: [] for task in self.tasks}
        for index, stage in enumerate(stages):
            passage = Passage(self.dtype, name=f'passage_{index}')
            for task, of_task in selected.items():
                before = passage(of_task[-1], stage) if of_task else None
                of_task.append(Selection(self.dtype, name=f'{task}_{index}')(stage, before))
        num_maps = len(features.maps)
        return {
            task: Features(fill_masked(of_task[-1], features.mask), features.mask, tuple(of_task[:num_maps]))
            for task, of_task in selected.items()
        }


class Passage(nn.Module):
    """From what a task took of one stage to the next stage.

    Attributes:
      dtype: of the arithmetic.
    """

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, before: Array, stage: Array) -> Array:
        """Returns `before` in the shape of `stage`, or its mean for each token; tokens as they are."""
        if before.ndim == 3:
            return before
        batch, *positions, channels = stage.shape
        if len(positions) == 1:
            mean = before.mean(axis=(1, 2))[:, None]
            return jnp.broadcast_to(mean, (batch, *positions, mean.shape[-1]))
        y = nn.Conv(channels, (3, 3), use_bias=False, kernel_init=conv_kernel, dtype=self.dtype, name='conv')(before)
        y = nn.relu(nn.LayerNorm(dtype=self.dtype, name='norm')(y))
        return jax.image.resize(y, stage.shape, 'linear')


class Selection(nn.Module):
    """One attention module: what a task takes of a stage.

    Attributes:
      dtype: of the arithmetic.
    """

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, stage: Array, before: Array | None) -> Array:
        """Returns `stage` `[B, ..., C]` times a mask that sees it and what a passage made of the stage `before`."""
        seen = stage if before is None else jnp.concatenate([stage, before], axis=-1)
        channels = stage.shape[-1]
        inner = nn.Dense(channels, use_bias=False, dtype=self.dtype, name='inner')(seen)
        hidden = nn.relu(nn.LayerNorm(dtype=self.dtype, name='norm')(inner))
        mask = nn.sigmoid(nn.Dense(channels, dtype=self.dtype, name='mask')(hidden))
        return mask * stage.astype(mask.dtype)
