"""Pytree helpers, and the nouns as pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.core.tree import all_finite, count, flatten_with_paths
from mmtl_jax.core.types import Batch, Features, Ragged


def test_leaves_are_named_by_their_path():
    tree = {
        'encoders': {'image': [jnp.zeros(2), jnp.zeros(())]},
        'fusion': Features(jnp.zeros((1, 2, 3)), jnp.ones((1, 2))),
    }
    assert list(flatten_with_paths(tree)) == ['encoders/image/0', 'encoders/image/1', 'fusion/tokens', 'fusion/mask']
    assert count(tree) == 2 + 1 + 6 + 2


def test_an_empty_tree_is_finite_and_has_no_elements():
    assert bool(all_finite({}))
    assert bool(all_finite({'ids': jnp.arange(3)}))
    assert count({}) == 0


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'complex64'])
def test_one_bad_number_is_found_under_jit(bad, dtype):
    good = {'a': jnp.zeros((2, 3), dtype), 'ids': jnp.arange(3), 'b': jnp.ones((), 'float32')}
    finite = jax.jit(all_finite)
    assert bool(finite(good))
    assert not bool(finite({**good, 'a': good['a'].at[1, 2].set(bad)}))


def test_the_nouns_pass_through_transformations():
    text = Ragged(jnp.arange(6).reshape(2, 3), jnp.ones((2, 3), bool))
    rows = jnp.ones(2, bool)
    batch = Batch({'text': text}, {'text': rows}, {'category': jnp.zeros(2, int)}, {'category': rows}, rows)
    doubled = jax.jit(
        lambda b: b.replace(inputs={'text': b.inputs['text'].replace(values=2 * b.inputs['text'].values)})
    )
    np.testing.assert_array_equal(doubled(batch).inputs['text'].values, 2 * np.arange(6).reshape(2, 3))
    assert Features(jnp.zeros((1, 1, 1)), jnp.ones((1, 1), bool)).maps == ()
