"""Tasks without a question: what a fusion or a sharing scheme learns by itself, weighted like every other task."""

import flax.linen as nn

from mmtl_jax.core.types import Array
from mmtl_jax.tasks.base import Task


class Given(nn.Module):
    """A head without parameters: it hands on the losses `[B]` that it was given."""

    @nn.compact
    def __call__(self, losses: Array, *, train: bool) -> Array:
        """Returns `losses`."""
        return losses


def auxiliary(task: str, *, objective: str | None = None) -> Task:
    """Returns a task that learns an objective of the fusion or of the sharing scheme, such as a reconstruction.

    It has no head, no metric beside its loss and no part in choosing the best checkpoint. It needs no labels: every row
    counts, and one that has nothing to learn from has the loss 0.

    Args:
      task: its name.
      objective: what the module calls it, such as 'reconstruction' or 'cca'; None for the name of the task.
    """
    return Task(
        name=task,
        head=Given(),
        loss=lambda losses, _: losses,
        metrics=lambda *_: {},
        scorer=None,
        primary='',
        higher_is_better=False,
        reads=f'fused/{objective or task}',
    )
