"""Floor 2: sharing schemes, Features to `{task: Features}`.

A sharing scheme is a linen module `(features, *, train) -> {task: Features}` with the fields `tasks` and `width`; what
it owns belongs to the shared parameters of the model.
"""

from mmtl_jax.sharing.hard import Hard
from mmtl_jax.sharing.split import Split

__all__ = ['Hard', 'Split']
