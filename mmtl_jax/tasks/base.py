"""What every task is, and the checks that the factories share."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import flax.linen as nn

from mmtl_jax import metrics
from mmtl_jax.core.overlays import Overlay
from mmtl_jax.core.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores that are no mean over rows, such as macro-F1 or the character error rate.

    Attributes:
      reduce: predictions -> a small pytree with leading axis B; runs on the device, under jit.
      score: per-row outputs of `reduce` and per-row targets, both numpy and of labelled rows only -> {name: score}.
    """

    reduce: Callable[[PyTree], PyTree]
    score: Callable[[list[PyTree], list[PyTree]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One question to the model.

    Attributes:
      name: what the batch, the metrics and the parameters call it.
      head: linen module, features -> predictions.
      loss: predictions, targets -> `[B]`.
      metrics: predictions, targets, weights `[B]` -> {name: (sum, count)}.
      scorer: scores of a whole split, or None.
      primary: the metric or score that stands for the task; '' for a task that only helps the others.
      higher_is_better: direction of `primary`.
      reads: 'fused'; the modality or modalities whose features the head takes before fusion; or 'fused/<objective>',
        a loss that the fusion gives.
      class_names: what the classes or labels are called; empty if they have numbers only.
      describe: one row's reduced output and its target -> both in words, for reports; or None.
      overlays: one row's reduced output and its target -> both as they lie in the picture, for reports; None for a task
        whose answer lies in no picture.
    """

    name: str
    head: nn.Module
    loss: Callable[[PyTree, PyTree], Array]
    metrics: Callable[[PyTree, PyTree, Array], dict[str, tuple[Array, Array]]]
    scorer: Scorer | None
    primary: str
    higher_is_better: bool
    reads: str | tuple[str, ...] = 'fused'
    class_names: tuple[str, ...] = ()
    describe: Callable[[PyTree, PyTree], tuple[str, str]] | None = None
    overlays: Callable[[PyTree, PyTree], tuple[Overlay, Overlay]] | None = None


def primaries_of(tasks: Iterable[Task]) -> dict[str, tuple[str, bool]]:
    """Returns task -> (primary metric, higher is better), in the order of the tasks."""
    return {task.name: (task.primary, task.higher_is_better) for task in tasks}


def reading(reads: str | Sequence[str]) -> str | tuple[str, ...]:
    """Returns a single name as a string and several as a tuple."""
    names = (reads,) if isinstance(reads, str) else tuple(reads)
    return names[0] if len(names) == 1 else names


def at_least(task: str, name: str, value: int, least: int) -> None:
    """Raises a `ValueError` that names the task if `value` is below `least`."""
    if value < least:
        raise ValueError(f'task {task!r}: {name} must be at least {least}, got {value}.')


def choice(task: str, name: str, value: str, choices: dict[str, object]) -> object:
    """Returns the choice of that name, or raises a `ValueError` that names the task and the choices."""
    if value not in choices:
        raise ValueError(f'task {task!r}: {name} must be one of {sorted(choices)}, got {value!r}.')
    return choices[value]


def primary_metric(task: str, primary: str, known: list[str]) -> dict[str, str | bool]:
    """Returns the fields `primary` and `higher_is_better`, or raises a `ValueError` if `primary` is not `known`."""
    choice(task, 'primary', primary, dict.fromkeys(known))
    return {'primary': primary, 'higher_is_better': metrics.higher_is_better(primary)}


def called(names: tuple[str, ...], label: int) -> str:
    """Returns the name of a class, its number where classes have no names."""
    return names[label] if names else str(label)


def class_names_of(task: str, class_names: Sequence[str], size: int) -> tuple[str, ...]:
    """Returns the names of the classes, or raises a `ValueError` that names the task if they are not `size` or none."""
    if class_names and len(class_names) != size:
        raise ValueError(f'task {task!r}: class_names must have {size} entries, got {len(class_names)}.')
    return tuple(class_names)
