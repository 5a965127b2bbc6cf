"""Floor 2: sharing schemes, Features to `{task: Features}`.

A sharing scheme is a linen module `(features, *, train) -> {task: Features}` with the fields `tasks` and `width`; what
it owns belongs to the shared parameters of the model. It treats the tokens and each map alike.
"""

from mmtl_jax.sharing.adapters import Adapters
from mmtl_jax.sharing.combined import Combined
from mmtl_jax.sharing.cross_stitch import CrossStitch
from mmtl_jax.sharing.dselect_k import DSelectK
from mmtl_jax.sharing.extraction import CGC, PLE
from mmtl_jax.sharing.hard import Hard
from mmtl_jax.sharing.hierarchical import Hierarchical
from mmtl_jax.sharing.learning_to_branch import LearningToBranch
from mmtl_jax.sharing.mmoe import MMoE
from mmtl_jax.sharing.mtan import MTAN
from mmtl_jax.sharing.split import Split
from mmtl_jax.sharing.task_attention import TaskAttention

__all__ = [
    'CGC',
    'MTAN',
    'PLE',
    'Adapters',
    'Combined',
    'CrossStitch',
    'DSelectK',
    'Hard',
    'Hierarchical',
    'LearningToBranch',
    'MMoE',
    'Split',
    'TaskAttention',
]
