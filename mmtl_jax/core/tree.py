"""Pytree helpers that several rooms use."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, PyTree


def path_string(path: tuple) -> str:
    """Returns a key path as `a/b/c`, the form in which configs name parameters."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def flatten_with_paths(tree: PyTree) -> dict[str, Array]:
    """Returns the leaves of `tree` by their path `a/b/c`."""
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def overlay(tree: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested mappings with the leaves of `part` in the place of those of `tree`.

    Raises:
      ValueError: `tree` has no such place, or a leaf of another shape there; the sentence names it.
    """
    places, values = flatten_with_paths(tree), flatten_with_paths(part)
    for path, leaf in values.items():
        if path not in places:
            raise ValueError(f'there is no place {path!r} for the values that are given.')
        if places[path].shape != leaf.shape:
            raise ValueError(f'{path!r} has shape {places[path].shape}, but the values that are given {leaf.shape}.')
    return jax.tree_util.tree_map_with_path(lambda path, leaf: values.get(path_string(path), leaf), tree)


def all_finite(tree: PyTree) -> Array:
    """Returns a bool scalar: every floating-point leaf of `tree` is finite everywhere."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)


def count(tree: PyTree) -> int:
    """Returns the number of array elements in `tree`."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
