"""Inner products of the tasks' gradients: the Gramian, leaf by leaf, and what is read off it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, PyTree

# Rows for which sums beat products on CPUs.
FEW = 4
# Numbers in a row from which on XLA for CPUs is slower at the product of rows, up to ten times, than at that of blocks.
LONG, BLOCK = 2**16, 2**11


def inner_products(jacobian: PyTree, leading: int = 1) -> Array:
    """Returns the Gramian `[T, T]` (`[S, S, T, T]` for two leading axes `[S, T]`), summed leaf by leaf.

    In the dtype of the leaves, and at least float32, at the device's full precision.
    """

    def of_leaf(leaf: Array) -> Array:
        axes = leaf.shape[:leading]
        rows = leaf.reshape(-1, *leaf.shape[leading:])
        found = products(rows, rows)
        return found if leading == 1 else found.reshape(*axes, *axes).transpose(0, 2, 1, 3)

    return sum(of_leaf(leaf) for leaf in jax.tree.leaves(jacobian))


def products(left: Array | Sequence[Array], right: Array | Sequence[Array]) -> Array:
    """Returns the inner products `[T, T]` of rows `[T, ...]` with rows `[T, ...]`, which must be symmetric.

    In the dtype of the left rows, and at least float32, at the device's full precision.
    """
    dtype = jnp.promote_types(left[0].dtype, jnp.float32)
    if sums_are_faster(len(left)):
        tasks = range(len(left))
        found = {
            (i, j): jnp.sum(left[i].astype(dtype) * right[j].astype(dtype)) for i in tasks for j in tasks if i <= j
        }
        return jnp.stack([jnp.stack([found[min(i, j), max(i, j)] for j in tasks]) for i in tasks])
    left, right = (jnp.asarray(rows).reshape(len(rows), -1) for rows in (left, right))

    def product(left: Array, right: Array) -> Array:
        return jnp.einsum(
            'ik,jk->ij', left, right, precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype
        ).astype(dtype)

    if not blocks_are_faster(left.shape[1]):
        return product(left, right)

    def add(index: Array, total: Array) -> Array:
        return total + product(*(jax.lax.dynamic_slice_in_dim(rows, index * BLOCK, BLOCK, 1) for rows in (left, right)))

    blocks = left.shape[1] // BLOCK
    rest = product(left[:, blocks * BLOCK :], right[:, blocks * BLOCK :])
    return jax.lax.fori_loop(0, blocks, add, rest)


def sums_are_faster(num_tasks: int) -> bool:
    """Returns whether products with so few rows take this platform longer than sums, one for each row or pair of rows.

    On CPUs, where a row of its own need not be copied to the others first, and what is summed may be masked in passing.
    """
    return num_tasks <= FEW and jax.default_backend() == 'cpu'


def blocks_are_faster(length: int) -> bool:
    """Returns whether the product of rows of this length takes the platform longer than those of their blocks.

    On a single CPU device: of rows that are spread over several, the blocks would have to be gathered first.
    """
    return length >= LONG and jax.default_backend() == 'cpu' and jax.device_count() == 1


def squared_norms(gramian: Array) -> Array:
    """Returns the squared norms of the gradients, `[T]` or `[S, T]`: the diagonal of the Gramian."""
    if gramian.ndim == 2:
        return jnp.diagonal(gramian)
    return jnp.einsum('aaii->ai', gramian)


def sound_gramian(gramian: Array, active: Array) -> tuple[Array, Array]:
    """Returns the Gramian and `active [T]` without the tasks whose squared norms are not finite, on any split."""
    active = active & on_every_split(jnp.isfinite(squared_norms(gramian)))
    return mask_gramian(gramian, active), active


def mask_gramian(gramian: Array, active: Array) -> Array:
    """Returns the Gramian with rows and columns of 0 for the tasks that are not `active [T]`, whatever theirs were."""
    return jnp.where(active[:, None] & active[None, :], gramian, 0.0)


def on_every_split(finite: Array) -> Array:
    """Returns `[T]`: true of the task on every split, for `[T]` or `[S, T]`."""
    return finite if finite.ndim == 1 else jnp.all(finite, axis=0)
