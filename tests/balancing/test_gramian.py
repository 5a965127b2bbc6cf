"""The Gramian is that of the rows, however many and however long they are, in at least float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.balancing import gramian
from mmtl_jax.balancing.gramian import BLOCK, FEW, LONG, inner_products, products


@pytest.fixture(autouse=True)
def in_blocks(monkeypatch):
    """Lets long rows be multiplied in blocks although the tests have several devices."""
    monkeypatch.setattr(gramian, 'blocks_are_faster', lambda length: length >= LONG)


def exact(left, right):
    left, right = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (left, right))
    return left @ right.T


@pytest.mark.parametrize('num_tasks', [2, FEW, FEW + 1])
@pytest.mark.parametrize('length', [1, BLOCK, LONG - 1, LONG, LONG + BLOCK + 5])
def test_few_and_many_short_and_long_rows(num_tasks, length):
    rows = np.random.default_rng(0).normal(size=(num_tasks, length)).astype(np.float32)
    # Sums of `length` float32 numbers near 1 and of either sign, in whatever order.
    tolerance = {'rtol': 1e-5, 'atol': 1e-5 * length**0.5}
    np.testing.assert_allclose(jax.jit(inner_products)(rows), exact(rows, rows), **tolerance)
    symmetric = jax.jit(products)(rows, [2 * row for row in rows] if num_tasks <= FEW else 2 * rows)
    np.testing.assert_allclose(symmetric, 2 * exact(rows, rows), **tolerance)


@pytest.mark.parametrize('length', [7, LONG + 3])
def test_leaves_add_up_and_splits_have_products_among_them(length):
    random = np.random.default_rng(1)
    tree = {
        'a': random.normal(size=(2, 3, length)).astype(np.float32),
        'b': random.normal(size=(2, 3)).astype(np.float32),
    }
    found = inner_products(tree, leading=2)
    assert found.shape == (2, 2, 3, 3)
    for a in range(2):
        for b in range(2):
            expected = sum(exact(leaf[a], leaf[b]) for leaf in tree.values())
            np.testing.assert_allclose(found[a, b], expected, rtol=1e-5, atol=1e-5 * length**0.5)


@pytest.mark.parametrize('num_tasks', [FEW, FEW + 1])
def test_rows_in_half_precision_have_a_gramian_in_float32(num_tasks):
    rows = jax.random.normal(jax.random.key(0), (num_tasks, LONG + 1)).astype(jnp.bfloat16)
    found = inner_products({'a': rows})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact(rows, rows), rtol=1e-5, atol=1e-5 * LONG**0.5)
