"""Pytree helpers that several rooms use."""

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, PyTree


def path_string(path: tuple) -> str:
    """Returns a key path as `a/b/c`, the form in which configs name parameters."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def flatten_with_paths(tree: PyTree) -> dict[str, Array]:
    """Returns the leaves of `tree` by their path `a/b/c`."""
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def all_finite(tree: PyTree) -> Array:
    """Returns a bool scalar: every floating-point leaf of `tree` is finite everywhere."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)


def count(tree: PyTree) -> int:
    """Returns the number of array elements in `tree`."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
