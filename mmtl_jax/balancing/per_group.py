"""A balancer for each group of parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.balancing.base import Balancer, Rows, Signals, initial_state
from mmtl_jax.balancing.gramian import inner_products
from mmtl_jax.balancing.wrappers import Spec, inner_balancer
from mmtl_jax.core.tree import path_string
from mmtl_jax.core.types import Array, PyTree


def per_group(balancer: Spec, *, depth: int | None = 1) -> Balancer:
    """Returns the balancer applied to each group of shared parameters by itself: one Gramian, one state, one direction.

    Two tasks may conflict in one layer and agree in another; with a Gramian for each, only the first is resolved. The
    idea is as old as GradVac (Wang et al., 2010.05874), which compares whole models, encoder and decoder,
    layers, and matrices; LibMTL has it for GradVac alone (`group_type`), TorchJD leaves it to its user to call an
    aggregator for each group (factor 1 against that).

    A group is what agrees in the first `depth` components of its path: with `params['encoder']['layer_1']['kernel']`,
    depth 1 has a group for all of `encoder`, depth 2 one for `layer_1`, and None one for every array.

    Task-own parameters get their own task's gradient: there is no one weight of a task to weight it with.

    Args:
      balancer: one that needs gradients; the weights of one that needs losses alone are the same in all groups.
      depth: at least 1, or None.

    Raises:
      ValueError: the depth is below 1, or the balancer does not weigh by gradients.
    """
    if depth is not None and depth < 1:
        raise ValueError(f'the depth of per_group must be at least 1, or None for every array, got {depth}.')
    inner = inner_balancer(balancer)
    if inner.needs == 'losses' or inner.after is not None:
        raise ValueError('per_group needs a balancer that weighs by gradients alone; this one looks at losses.')
    # All groups are solved as one batch where all that is asked for is their Gramians.
    batched = inner.needs == 'gramian'

    def init(num_tasks: int, gradient: PyTree) -> Any:
        groups = _groups(gradient, depth)
        states = [initial_state(inner, num_tasks, leaves) for leaves in groups.values()]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if batched else states

    def update(signals: Signals, state: Any) -> tuple[Rows, Any]:
        leading = signals.losses.ndim
        groups = _groups(signals.jacobian, depth)
        gramians = [inner_products(leaves, leading) for leaves in groups.values()]
        if batched:
            weights, state = jax.vmap(
                lambda gramian, state: inner.update(signals.replace(gramian=gramian, jacobian=None), state)
            )(jnp.stack(gramians), state)
        else:
            results = [
                inner.update(signals.replace(gramian=gramian, jacobian=leaves), before)
                for gramian, leaves, before in zip(gramians, groups.values(), state, strict=True)
            ]
            weights, state = zip(*results, strict=True)
            state = list(state)
        rows = {name: _rows(weights[k], leaves) for k, (name, leaves) in enumerate(groups.items())}
        return Rows.summed(_ungroup(rows, signals.jacobian, depth), signals), state

    return Balancer(init=init, update=update, needs='jacobian', heads='own', splits=inner.splits)


def _rows(weights: Array | Rows, leaves: list[Array]) -> list[Array]:
    if isinstance(weights, Rows):
        weights, leaves = weights.weights, weights.rows

    def weighted(leaf: Array) -> Array:
        return (weights.reshape(weights.shape + (1,) * (leaf.ndim - weights.ndim)) * leaf).astype(leaf.dtype)

    return [weighted(leaf) for leaf in leaves]


def _name(path: tuple, depth: int | None) -> str:
    return '/'.join(path_string(path).split('/')[:depth])


def _groups(tree: PyTree, depth: int | None) -> dict[str, list]:
    """Returns name -> leaves, in the order of the tree."""
    groups: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        groups.setdefault(_name(path, depth), []).append(leaf)
    return groups


def _ungroup(groups: dict[str, list], like: PyTree, depth: int | None) -> PyTree:
    """Returns the leaves of the groups in the tree that they came from."""
    next_of: dict[str, Callable[[], Any]] = {name: iter(leaves).__next__ for name, leaves in groups.items()}
    return jax.tree_util.tree_map_with_path(lambda path, _: next_of[_name(path, depth)](), like)
