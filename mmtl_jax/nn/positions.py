"""Positions for attention: rotations of queries and keys, and waves to add to tokens."""

import jax.numpy as jnp

from mmtl_jax.core.types import Array

LONGEST_WAVE = 10_000.0


def angles(length: int, num_waves: int) -> Array:
    """Returns position times frequency, `[length, num_waves]`, the frequencies falling from 1 to 1 / `LONGEST_WAVE`."""
    frequencies = LONGEST_WAVE ** (-jnp.arange(num_waves) / num_waves)
    return jnp.outer(jnp.arange(length), frequencies)


def rotate(heads: Array) -> Array:
    """Rotates pairs of channels by an angle that grows with the position (Su et al. 2021, 2104.09864, eq. 34).

    The product of a rotated query and a rotated key depends on their distance only. Channel i is paired with channel
    i + D / 2, a permutation of the paper's order.

    Args:
      heads: `[B, N, heads, D]` with D even.

    Returns:
      The same shape.
    """
    phases = angles(heads.shape[1], heads.shape[-1] // 2)[None, :, None, :]
    sin, cos = jnp.sin(phases).astype(heads.dtype), jnp.cos(phases).astype(heads.dtype)
    first, second = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def sinusoids(length: int, width: int) -> Array:
    """Returns `[length, width]`, sines and then cosines of the positions, to be added (1706.03762, section 3.5).

    Channel i is a permutation of the paper's order, which puts sines and cosines in turn.
    """
    phases = angles(length, -(-width // 2))
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=-1)[:, :width]
