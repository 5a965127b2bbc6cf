"""Learning to branch."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, mix

ANNEALING = 'annealing'


class LearningToBranch(CheckedModule):
    """Layers of nodes, each of which learns which node of the layer below it reads (Guo et al. 2020, 2006.01895).

    There are T nodes a layer; those of the last are the tasks' own. In training node i of layer l reads node j with the
    probability softmax(A_i)_j, drawn by the Gumbel-max trick, for the whole batch alike; the gradient of the draw is
    that of softmax((A_i + Gumbel noise) / temperature) (straight through). In evaluation it reads the node of the
    highest A_ij, the first of several, and nothing is drawn. LibMTL draws there, too.

    The temperature falls geometrically with the passes in training, which are counted in the collection `annealing`.
    In the paper the tree that was found is trained anew; here networks and scores go on together.

    Attributes:
      tasks: task names; the node of a task at layer l is at `<task>_<l>`, and the A of all at `branching_<l>`.
      width: feature size D.
      depth: layers, of the tokens and of each map; with one there is nothing to choose, and the scheme is `Split`.
      temperature: at the first pass.
      final_temperature: from pass `num_passes` on.
      num_passes: over which the temperature falls.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    depth: int = 2
    temperature: float = 5.0
    final_temperature: float = 0.5
    num_passes: int = 1000
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features.

        Raises:
          ValueError: a temperature that is not above 0.
        """
        if min(self.temperature, self.final_temperature) <= 0:
            raise ValueError(
                'LearningToBranch: the temperatures must be above 0, got '
                f'{self.temperature} and {self.final_temperature}.'
            )
        passes = self._count(train)
        temperature = annealed(self.temperature, self.final_temperature, passes / self.num_passes)
        outputs = dict.fromkeys(self.tasks, features)
        for layer in range(self.depth):
            if layer:
                scores = self.param(f'branching_{layer}', nn.initializers.zeros, (len(self.tasks),) * 2)
                chosen = self._choose(scores, temperature, train=train)
                nodes = list(outputs.values())
                outputs = {task: mix(row, nodes) for task, row in zip(self.tasks, chosen, strict=True)}
            outputs = {
                task: Branch(self.width, 1, self.dropout_rate, self.dtype, name=f'{task}_{layer}')(
                    outputs[task], train=train
                )
                for task in self.tasks
            }
        return outputs

    def _count(self, train: bool) -> Array:
        """Returns the number of passes in training before this one, and counts this one."""
        passes = self.variable(ANNEALING, 'passes', jnp.zeros, (), jnp.int32)
        before = passes.value
        if train and not self.is_initializing() and self.is_mutable_collection(ANNEALING):
            passes.value = before + 1
        return before

    def _choose(self, scores: Array, temperature: Array, *, train: bool) -> Array:
        """Returns rows `[T, T]` with a single 1: what each node reads."""
        if not train:
            return jax.nn.one_hot(jnp.argmax(scores, axis=-1), len(self.tasks), dtype=scores.dtype)
        noisy = scores + jax.random.gumbel(self.make_rng('dropout'), scores.shape, scores.dtype)
        hard = jax.nn.one_hot(jnp.argmax(noisy, axis=-1), len(self.tasks), dtype=scores.dtype)
        soft = jax.nn.softmax(noisy / temperature)
        # The value is exactly that of the hard choice: x - x is 0.
        return hard + (soft - jax.lax.stop_gradient(soft))


def annealed(first: float, last: float, share: Array) -> Array:
    """Returns the value on the geometric way from `first` to `last`, at `share` of it; `last` from 1 on."""
    return first * (last / first) ** jnp.minimum(share, 1)
