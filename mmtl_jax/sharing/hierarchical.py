"""A hierarchy of tasks."""

import graphlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, PyTree
from mmtl_jax.nn import CheckedModule
from mmtl_jax.sharing.branch import Branch, concatenate, each_stream

# From what a head predicts to what other tasks read, by the `distribution` that the head names.
PROBABILITIES = {'categorical': jax.nn.softmax, 'bernoulli': jax.nn.sigmoid, 'normal': lambda numbers: numbers}


class Hierarchical(CheckedModule):
    """Tasks build on tasks: h_t = f_t([x; h_b for each base task b of t]), along a graph without cycles.

    This is the joint many-task model (Hashimoto et al. 2017, 1611.01587) and the hierarchy of Sanh et al. (2018,
    1811.06031), with an MLP in place of each LSTM. Where a base task is among `predictions`, t also reads what its head
    predicts, as the first of these papers embeds labels: f_t([x; h_b; E_tb p_b]), with p_b the probabilities of a
    classification or the numbers of a regression.

    A head whose predictions others read is no longer its own task's alone: the scheme holds it, at `head_<task>` among
    the shared parameters, and gives what it predicts in the place of the task's Features.

    Attributes:
      tasks: task names; the network of a task is at `<task>`.
      width: feature size D.
      builds_on: task -> its base tasks; a task that is not named has none. By default each task builds on the one
        before it in `tasks`.
      stop_gradient: True if no task trains the networks and heads of its base tasks, or the base tasks that only they
        themselves train.
      predictions: True if tasks read the predictions of all their base tasks, or the base tasks whose predictions they
        read.
      depth: layers per task, of the tokens and of each map.
      dropout_rate: dropout after each layer.
      dtype: of the arithmetic and the result, such as `'bfloat16'`; parameters stay float32.
    """

    tasks: tuple[str, ...]
    width: int
    builds_on: Mapping[str, tuple[str, ...]] | None = None
    stop_gradient: bool | tuple[str, ...] = False
    predictions: bool | tuple[str, ...] = False
    depth: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @property
    def held(self) -> tuple[str, ...]:
        """The base tasks whose heads the scheme needs, since other tasks read what these predict."""
        bases = {base for names in bases_of(self.tasks, self.builds_on).values() for base in names}
        return tuple(task for task in chosen(self.tasks, self.predictions, 'predictions') if task in bases)

    @nn.compact
    def __call__(
        self, features: Features, *, heads: Mapping[str, nn.Module] | None = None, train: bool
    ) -> dict[str, PyTree]:
        """Returns each task's Features, or the predictions of its head where the scheme holds this.

        Args:
          features: from the fusion.
          heads: task -> head, at least of the tasks in `held`.
          train: whether dropout acts.

        Raises:
          ValueError: a name that is no task, tasks that build on each other, predictions that cannot be read.
        """
        bases = bases_of(self.tasks, self.builds_on)
        stopped = chosen(self.tasks, self.stop_gradient, 'stop_gradient')
        held = check_heads(self.held, heads or {})
        channels = [level.shape[-1] for level in features.maps]
        outputs, handed_on = {}, {}
        for task in graphlib.TopologicalSorter(bases).static_order():
            inputs = [features]
            for base in bases[task]:
                inputs += [handed_on[base][0]]
                if base in held:
                    inputs += [self._embed(f'embed_{base}_{task}', handed_on[base][1], held[base], features)]
            branch = Branch(self.width, self.depth, self.dropout_rate, self.dtype, name=task)
            own = outputs[task] = branch(concatenate(inputs), channels=channels, train=train)
            if task in held:
                # In a model the head has a parent already; a deep clone is free to take its own name.
                head = held[task].clone(parent=self, name=f'head_{task}', _deep_clone=True)
                outputs[task] = head(own, train=train)
            handed_on[task] = own, outputs[task]
            if task in stopped:
                handed_on[task] = jax.lax.stop_gradient(handed_on[task])
        return {task: outputs[task] for task in self.tasks}

    def _embed(self, name: str, predictions: Array, head: nn.Module, features: Features) -> Features:
        """Returns E p `[B, width]`, the same in every stream and position of `features`."""
        code = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=name)(
            PROBABILITIES[head.distribution](predictions)
        )

        def spread(_: str, stream: Array) -> Array:
            places = code.reshape(len(code), *(1,) * (stream.ndim - 2), self.width)
            return jnp.broadcast_to(places, (*stream.shape[:-1], self.width))

        return each_stream(spread, features)


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


def chosen(tasks: tuple[str, ...], choice: bool | tuple[str, ...], field: str) -> tuple[str, ...]:
    """Returns all tasks for True, none for False, or those that are named; a `ValueError` for what is no task."""
    if isinstance(choice, bool):
        return tasks if choice else ()
    names = (choice,) if isinstance(choice, str) else tuple(choice)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        raise ValueError(f'Hierarchical: {field} names {unknown[0]!r}, which is not among the tasks {tasks}.')
    return names


def check_heads(held: tuple[str, ...], heads: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Returns the heads of the tasks `held`.

    Raises:
      ValueError: a head that is missing, or whose predictions are not the distribution of a vector.
    """
    for task in held:
        if task not in heads:
            raise ValueError(
                f'Hierarchical: tasks read the predictions of {task!r}; give the scheme its head, as the model does.'
            )
        if getattr(heads[task], 'distribution', None) not in PROBABILITIES:
            raise ValueError(
                f'Hierarchical: tasks read the predictions of {task!r}, but {type(heads[task]).__name__} has no '
                f'distribution among {tuple(PROBABILITIES)}; leave the task out of `predictions`.'
            )
    return {task: heads[task] for task in held}
