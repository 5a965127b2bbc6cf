"""Parameters that stay as they are: no gradient is computed for them, and no state is kept.

What is trained is a tree like the parameters with `optax.MaskedNode` in the place of what is frozen, so that whatever
maps over it, an optimizer as well as a gradient, never meets a frozen parameter.
"""

import re
from collections.abc import Sequence

import jax
import optax

from mmtl_jax.core.tree import flatten_with_paths, path_string
from mmtl_jax.core.types import PyTree


def trained_part(params: PyTree, freeze: Sequence[str]) -> PyTree:
    """Returns the parameters with `optax.MaskedNode` in the place of those whose path matches, from its start."""

    def keep(path: tuple, leaf: jax.Array) -> jax.Array | optax.MaskedNode:
        return optax.MaskedNode() if matches(freeze, path_string(path)) else leaf

    return jax.tree_util.tree_map_with_path(keep, params) if freeze else params


def join(trained: PyTree, params: PyTree) -> PyTree:
    """Returns `trained`, with what is frozen in it from `params`."""
    return jax.tree.map(
        lambda own, other: other if isinstance(own, optax.MaskedNode) else own,
        trained,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def matches(expressions: Sequence[str], path: str) -> bool:
    """Returns whether one of the expressions matches the path from its start."""
    return any(re.match(expression, path) for expression in expressions)


def check_freeze(freeze: Sequence[str], params: PyTree) -> None:
    """Raises a `ValueError` if an expression matches no parameter, or if nothing is left to train."""
    paths = list(flatten_with_paths(params))
    check_matches('freeze', freeze, paths)
    if all(matches(freeze, path) for path in paths):
        raise ValueError(f'freeze {list(freeze)} leaves nothing to train; leave out the heads at least.')


def check_matches(name: str, expressions: Sequence[str], paths: Sequence[str]) -> None:
    """Raises a `ValueError` for the first expression of the argument `name` that is none, or matches no path."""
    for expression in expressions:
        try:
            matched = any(re.match(expression, path) for path in paths)
        except re.error as error:
            raise ValueError(f'{name} {expression!r} is no regular expression: {error}.') from error
        if not matched:
            groups = sorted({'/'.join(path.split('/')[:2]) for path in paths})
            raise ValueError(f'{name} {expression!r} matches no parameter; there are {groups}.')


def freezing(inner: optax.GradientTransformation, freeze: Sequence[str]) -> optax.GradientTransformation:
    """Returns `inner` for what is trained; updates of what is frozen are 0, and it has no state.

    It takes gradients of all parameters, or of the trained part alone.
    """

    def labels(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: 'frozen' if matches(freeze, path_string(path)) else 'trained', tree
        )

    return optax.multi_transform({'trained': inner, 'frozen': optax.set_to_zero()}, labels)
