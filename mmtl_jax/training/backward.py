"""The way back: from the heads' cotangents to the gradient of the shared parameters, by one of three ways.

All run the shared part of the model forward once. `through_losses` goes back once, with the weighted sum of the tasks'
cotangents. `at_parameters` goes back for each task. `at_features` goes back for each task, but only to the features z
that the sharing scheme and the heads take, and from there once: for MGDA, this is MGDA-UB (Sener & Koltun,
1810.04650, section 3.3).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.balancing import Rows
from mmtl_jax.balancing.jacobian import Gradients, pullback
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.training.objective import Objective

SHARING = 'sharing'
# Task -> gradients of its loss by the floats that its head takes, in the order of the tasks.
Cotangents = dict[str, list[Array]]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a `{name: tree}` stand in the lists that `separate` made of them.

    Attributes:
      structures: name -> structure of its tree, as items.
      places: name -> for each of its leaves whether it is a float, and its position in the list of these or of those.
    """

    structures: tuple[tuple[str, Any], ...]
    places: tuple[tuple[tuple[bool, int], ...], ...]

    def join(self, floats: Mapping[str, Sequence[Array]], rest: Sequence[Array]) -> dict[str, PyTree]:
        """Returns the trees, from the float leaves of each and the list of the others."""
        trees = {}
        for (name, structure), places in zip(self.structures, self.places, strict=True):
            own = iter(floats[name])
            trees[name] = structure.unflatten([next(own) if is_float else rest[index] for is_float, index in places])
        return trees

    def distribute(self, floats: Sequence[Array]) -> dict[str, list[Array]]:
        """Returns the float leaves of each name, from the list of the different ones."""
        return {
            name: [floats[index] for is_float, index in places if is_float]
            for (name, _), places in zip(self.structures, self.places, strict=True)
        }

    def weigh(self, cotangents: Cotangents, weights: Array, active: Array) -> list[Array]:
        """Returns the weighted sum over the active tasks for each of the different floats; others may hold NaN.

        Args:
          cotangents: task -> those of its floats, in the order of the tasks.
          weights: `[T]`.
          active: `[T]` bool.
        """
        totals: dict[int, Array] = {}
        for task, (name, own) in enumerate(cotangents.items()):
            for index, cotangent in zip(self._indices(name), own, strict=True):
                part = jnp.where(active[task], cotangent, 0) * weights[task].astype(cotangent.dtype)
                totals[index] = totals[index] + part if index in totals else part
        return [totals[index] for index in sorted(totals)]

    def stack(self, cotangents: Cotangents) -> list[Array]:
        """Returns `[T, ...]` for each of the different floats, with zeros where a task does not take it."""
        rows: dict[int, dict[int, Array]] = {}
        for task, (name, own) in enumerate(cotangents.items()):
            for index, cotangent in zip(self._indices(name), own, strict=True):
                of_float = rows.setdefault(index, {})
                of_float[task] = of_float[task] + cotangent if task in of_float else cotangent
        stacked = []
        for _, of_float in sorted(rows.items()):
            zeros = jnp.zeros_like(next(iter(of_float.values())))
            stacked.append(jnp.stack([of_float.get(task, zeros) for task in range(len(cotangents))]))
        return stacked

    def _indices(self, name: str) -> list[int]:
        position = [known for known, _ in self.structures].index(name)
        return [index for is_float, index in self.places[position] if is_float]


def separate(trees: Mapping[str, PyTree]) -> tuple[list[Array], list[Array], Layout]:
    """Returns the different float arrays of some trees, the other arrays, and where all of them stand.

    What several names share, as tasks do under hard sharing, is one array: its gradient is asked for once.
    """
    floats: dict[int, tuple[int, Array]] = {}
    rest: list[Array] = []
    structures, places = [], []
    for name, tree in trees.items():
        leaves, structure = jax.tree.flatten(tree)
        structures.append((name, structure))
        spots = []
        for leaf in leaves:
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                spots.append((True, floats.setdefault(id(leaf), (len(floats), leaf))[0]))
            else:
                spots.append((False, len(rest)))
                rest.append(leaf)
        places.append(tuple(spots))
    return [leaf for _, leaf in floats.values()], rest, Layout(tuple(structures), tuple(places))


@dataclasses.dataclass(frozen=True)
class Shared:
    """The shared part of a forward pass, and the way back through it.

    Attributes:
      floats: the different float arrays that the heads take.
      rest: the other arrays that they take.
      layout: which head takes which.
      variables: the model's non-parameter collections after the pass.
      gradients: cotangents of what the heads take -> the tasks' gradients of what is balanced; None where nothing is.
      direction: (cotangents, weights `[T]` or `Rows`, active `[T]`, the tasks' gradients) -> gradient of the shared
        parameters.
    """

    floats: list[Array]
    rest: list[Array]
    layout: Layout
    variables: PyTree
    gradients: Callable[[Cotangents], Gradients] | None
    direction: Callable[[Cotangents, Array | Rows, Array, Gradients | None], PyTree]


def through_losses(objective: Objective, params: PyTree, variables: PyTree, batch: Batch, key: Array) -> Shared:
    """Returns the shared part for balancers that need no gradients."""
    forward = _to_heads(objective, variables, batch, key)
    floats, back, (rest, layout, after) = jax.vjp(forward, params, has_aux=True)

    def direction(cotangents, weights, active, _):
        return back(layout.weigh(cotangents, weights, active))[0]

    return Shared(floats, rest, layout, after, None, direction)


def at_parameters(
    objective: Objective,
    params: PyTree,
    variables: PyTree,
    batch: Batch,
    key: Array,
    *,
    num_tasks: int,
    factored: bool,
    chunk_size: int | None,
) -> Shared:
    """Returns the shared part, with the tasks' gradients of the shared parameters."""
    forward = _to_heads(objective, variables, batch, key)
    floats, (rest, layout, after), pull = pullback(
        forward, params, num_tasks=num_tasks, factored=factored, chunk_size=chunk_size
    )

    def direction(_, weights, active, found):
        return found.combine(weights, active)

    return Shared(floats, rest, layout, after, lambda cotangents: pull(layout.stack(cotangents)), direction)


def at_features(
    objective: Objective,
    params: PyTree,
    variables: PyTree,
    batch: Batch,
    key: Array,
    *,
    num_tasks: int,
    chunk_size: int | None,
) -> Shared:
    """Returns the shared part, with the tasks' gradients of the features z.

    The parameters of the sharing scheme, which lie above z, get the weighted sum of the tasks' gradients; under a
    method that does not weight whole gradients, their sum.
    """
    below = {name: part for name, part in params.items() if name != SHARING}
    above = {SHARING: params[SHARING]} if SHARING in params else {}

    def lower(below):
        z, between = objective.features(below, variables, batch, key)
        floats, rest, layout = separate(z)
        return layout.distribute(floats), (rest, layout, between)

    z, back_to_parameters, (z_rest, z_layout, between) = jax.vjp(lower, below, has_aux=True)

    def upper(above, z):
        return _share(objective, above, between, z_layout.join(z, z_rest), key)

    floats, (rest, layout, after), pull = pullback(
        lambda z: upper(above, z), z, num_tasks=num_tasks, factored=False, chunk_size=chunk_size
    )
    _, back_to_sharing, _ = jax.vjp(lambda above: upper(above, z), above, has_aux=True)

    def direction(cotangents, weights, active, found):
        at_z = found.combine(weights, active)
        scalars = jnp.ones(active.shape) if isinstance(weights, Rows) else weights
        (of_sharing,) = back_to_sharing(layout.weigh(cotangents, scalars, active))
        return {**back_to_parameters(at_z)[0], **of_sharing}

    return Shared(floats, rest, layout, after, lambda cotangents: pull(layout.stack(cotangents)), direction)


def feature_example(objective: Objective, params: PyTree, variables: PyTree, batch: Batch, key: Array) -> PyTree:
    """Returns shapes and dtypes of what is balanced at the features, one task's gradient of z."""

    def z(params):
        floats, _, layout = separate(objective.features(params, variables, batch, key)[0])
        return layout.distribute(floats)

    return jax.eval_shape(z, {name: part for name, part in params.items() if name != SHARING})


def _to_heads(objective: Objective, variables: PyTree, batch: Batch, key: Array) -> Callable[[PyTree], Any]:
    """Returns shared parameters -> (floats that the heads take, (the rest, the layout, variables after the pass))."""

    def forward(params: PyTree) -> tuple[list[Array], tuple[list[Array], Layout, PyTree]]:
        z, between = objective.features(params, variables, batch, key)
        return _share(objective, params, between, z, key)

    return forward


def _share(
    objective: Objective, params: PyTree, variables: PyTree, z: PyTree, key: Array
) -> tuple[list[Array], tuple[list[Array], Layout, PyTree]]:
    features, after = objective.share(params, variables, z, key)
    floats, rest, layout = separate(features)
    return floats, (rest, layout, after)
