"""Progressive layered extraction: experts of all tasks beside experts of each."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Features
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, mix
from mmtl_jax.sharing.gate import Gate

SHARED = 'shared'


class CGC(CheckedModule):
    """Customised gate control: z_t = sum_k softmax(W_t x)_k f_k(x) over the experts of task t and the shared ones.

    One level of `PLE` (Tang et al., RecSys 2020, section 4.1). Without shared experts and with one of its
    own, a task has no gate, and the scheme is `Split`.

    Attributes:
      tasks: task names.
      width: feature size D.
      num_shared: experts that all tasks use.
      num_own: experts of each task.
      depth: layers of each expert, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`, but for the gates; parameters stay float32.
    """

    least_sizes: ClassVar[Mapping[str, int]] = {'num_shared': 0, 'num_own': 0}

    tasks: tuple[str, ...]
    width: int
    num_shared: int = 1
    num_own: int = 1
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's mixture.

        Raises:
          ValueError: a task without any expert, or with the name of what is shared.
        """
        check_experts(self)
        inputs = dict.fromkeys((*self.tasks, SHARED), features)
        return extract(self, inputs, 'level_0', readers=self.tasks, train=train)


class PLE(CheckedModule):
    """Progressive layered extraction (Tang et al., RecSys 2020, section 4.2): levels of `CGC`.

    With x_t^0 = x_s^0 = x, at level l each expert f of task t reads x_t^{l-1} and each shared one x_s^{l-1}, and

        x_t^l = sum_k softmax(W_t^l x_t^{l-1})_k f_k over the experts of task t and the shared ones,
        x_s^l = sum_k softmax(W_s^l x_s^{l-1})_k f_k over the experts of all tasks and the shared ones.

    The last level has no x_s. LibMTL's PLE has none at any level: there, nothing flows from the experts of one task to
    another task.

    Attributes:
      tasks: task names.
      width: feature size D.
      num_levels: levels of extraction.
      num_shared: shared experts at each level.
      num_own: experts of each task at each level.
      depth: layers of each expert, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`, but for the gates; parameters stay float32.
    """

    least_sizes: ClassVar[Mapping[str, int]] = {'num_own': 0}

    tasks: tuple[str, ...]
    width: int
    num_levels: int = 2
    num_shared: int = 1
    num_own: int = 1
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's mixture of the last level.

        Raises:
          ValueError: a task with the name of what is shared.
        """
        check_experts(self)
        everyone = (*self.tasks, SHARED)
        outputs = dict.fromkeys(everyone, features)
        for level in range(self.num_levels):
            readers = everyone if level < self.num_levels - 1 else self.tasks
            outputs = extract(self, outputs, f'level_{level}', readers=readers, train=train)
        return outputs


def extract(
    scheme: CGC | PLE, inputs: Mapping[str, Features], prefix: str, *, readers: tuple[str, ...], train: bool
) -> dict[str, Features]:
    """Returns what one level hands to each of the `readers`; called inside the compact method of `scheme`.

    Args:
      scheme: has the fields of `CGC`.
      inputs: what the experts and the gate of each task read, and of the shared ones.
      prefix: of the names of the level's parameters, `<prefix>_expert_<task>_<k>` and `<prefix>_gate_<task>`.
      readers: tasks, and `'shared'` where there is a level above.
      train: whether dropout acts.
    """
    experts = {
        owner: [
            Branch(
                scheme.width, scheme.depth, scheme.dropout_rate, scheme.dtype, name=f'{prefix}_expert_{owner}_{index}'
            )(inputs[owner], train=train)
            for index in range(scheme.num_shared if owner == SHARED else scheme.num_own)
        ]
        for owner in inputs
    }
    outputs = {}
    for reader in readers:
        owners = experts if reader == SHARED else (reader, SHARED)
        candidates = [expert for owner in owners for expert in experts[owner]]
        outputs[reader] = mix(Gate(len(candidates), name=f'{prefix}_gate_{reader}')(inputs[reader]), candidates)
    return outputs


def check_experts(scheme: CGC | PLE):
    """Raises a `ValueError` for a task without any expert, or a task with the name of what is shared."""
    name = type(scheme).__name__
    if scheme.num_shared + scheme.num_own < 1:
        raise ValueError(f'{name}: a task has no expert; set num_shared or num_own to at least 1.')
    if SHARED in scheme.tasks:
        raise ValueError(f'{name}: a task cannot be called {SHARED!r}, the name of the shared experts; rename it.')
