"""A hierarchy of tasks."""

import graphlib
from collections.abc import Mapping

import flax.linen as nn
import jax

from mmtl_jax.core.types import Features
from mmtl_jax.sharing.branch import Branch, concatenate


class Hierarchical(nn.Module):
    """Tasks build on tasks: h_t = f_t([x; h_b for each base task b of t]), along a graph without cycles.

    This is the joint many-task model (Hashimoto et al. 2017, 1611.01587) and the hierarchy of Sanh et al. (2018,
    1811.06031), with an MLP in place of each LSTM.

    Attributes:
      tasks: task names; the network of a task is at `<task>`.
      width: feature size D.
      builds_on: task -> its base tasks; a task that is not named has none. By default each task builds on the one
        before it in `tasks`.
      stop_gradient: True if no task trains the networks of its base tasks, or the base tasks that only they themselves
        train.
      depth: layers per task, of the tokens and of each map.
      dropout_rate: dropout after each layer.
    """

    tasks: tuple[str, ...]
    width: int
    builds_on: Mapping[str, tuple[str, ...]] | None = None
    stop_gradient: bool | tuple[str, ...] = False
    depth: int = 1
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> dict[str, Features]:
        """Returns each task's Features.

        Raises:
          ValueError: a name that is no task, or tasks that build on each other.
        """
        bases = bases_of(self.tasks, self.builds_on)
        stopped = check_stopped(self.tasks, self.stop_gradient)
        channels = [level.shape[-1] for level in features.maps]
        outputs, handed_on = {}, {}
        for task in graphlib.TopologicalSorter(bases).static_order():
            inputs = concatenate([features, *(handed_on[base] for base in bases[task])])
            branch = Branch(self.width, self.depth, self.dropout_rate, name=task)
            outputs[task] = branch(inputs, channels=channels, train=train)
            handed_on[task] = jax.lax.stop_gradient(outputs[task]) if task in stopped else outputs[task]
        return {task: outputs[task] for task in self.tasks}


def bases_of(tasks: tuple[str, ...], builds_on: Mapping[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]]:
    """Returns task -> its base tasks, for all tasks.

    Raises:
      ValueError: a name that is no task, or tasks that build on each other.
    """
    if builds_on is None:
        return {task: tasks[max(position - 1, 0) : position] for position, task in enumerate(tasks)}
    bases = {task: (names,) if isinstance(names, str) else tuple(names) for task, names in builds_on.items()}
    unknown = [name for task, names in bases.items() for name in (task, *names) if name not in tasks]
    if unknown:
        raise ValueError(f'Hierarchical: builds_on names {unknown[0]!r}, which is not among the tasks {tasks}.')
    bases = {task: bases.get(task, ()) for task in tasks}
    try:
        graphlib.TopologicalSorter(bases).prepare()
    except graphlib.CycleError as error:
        raise ValueError(
            f'Hierarchical: the tasks {" -> ".join(error.args[1])} build on each other; take one out of builds_on.'
        ) from error
    return bases


def check_stopped(tasks: tuple[str, ...], stop_gradient: bool | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the base tasks whose features are handed on without gradient; a `ValueError` for what is no task."""
    if isinstance(stop_gradient, bool):
        return tasks if stop_gradient else ()
    names = (stop_gradient,) if isinstance(stop_gradient, str) else tuple(stop_gradient)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        raise ValueError(f'Hierarchical: stop_gradient names {unknown[0]!r}, which is not among the tasks {tasks}.')
    return names
