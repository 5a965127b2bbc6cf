"""Tables of names and the changes of layout in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.pretrained.names import (
    CONV,
    DENSE,
    SAME,
    Entry,
    NameTable,
    Report,
    heads_in,
    heads_out,
    leading,
    split,
    unflatten,
)

TRANSFORMS = {
    'same': (SAME, (3, 4), [(3, 4)]),
    'dense': (DENSE, (3, 4), [(4, 3)]),
    'convolution in two dimensions': (CONV, (5, 2, 3, 4), [(3, 4, 2, 5)]),
    'convolution in one dimension': (CONV, (5, 2, 3), [(3, 2, 5)]),
    'to heads': (heads_in(3), (6, 5), [(5, 3, 2)]),
    'to heads, bias': (heads_in(3), (6,), [(3, 2)]),
    'from heads': (heads_out(3), (5, 6), [(3, 2, 5)]),
    'axes in front': (leading(2), (6,), [(1, 1, 6)]),
    'split': (split(3, heads_in(2)), (12, 5), [(5, 2, 2)] * 3),
}


@pytest.mark.parametrize('name', TRANSFORMS)
def test_a_change_of_layout_is_undone_to_the_bit(name):
    transform, shape, shapes = TRANSFORMS[name]
    # Every pattern of bits, those of NaN included.
    array = np.random.default_rng(0).integers(0, 2**32, shape, np.uint32).view(np.float32)
    parts = transform.forward(array)
    assert [part.shape for part in parts] == shapes
    back = transform.backward(*(np.asarray(part, order='C') for part in parts))
    np.testing.assert_array_equal(np.asarray(back, order='C').view(np.uint32), array.view(np.uint32))


def test_dense_multiplies_as_the_original_does():
    weight, x = np.arange(12.0).reshape(3, 4), np.arange(4.0)
    np.testing.assert_array_equal(x @ DENSE.forward(weight)[0], weight @ x)
    np.testing.assert_array_equal(np.einsum('d,dhk->hk', x, heads_in(3).forward(weight)[0]).ravel(), weight @ x)
    np.testing.assert_array_equal(np.einsum('hk,hkd->d', x.reshape(2, 2), heads_out(2).forward(weight)[0]), weight @ x)


def test_convolution_is_that_of_the_original():
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(1, 2, 5, 4)), generator.normal(size=(3, 2, 3, 3))
    same = jax.lax.conv_general_dilated(
        jnp.asarray(image.transpose(0, 2, 3, 1)),
        jnp.asarray(CONV.forward(kernel)[0]),
        (1, 1),
        'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    windows = np.lib.stride_tricks.sliding_window_view(image[0], (3, 3), axis=(1, 2))
    expected = np.einsum('iyxhw,oihw->yxo', windows, kernel)
    # float32 sums of 18 products.
    np.testing.assert_allclose(same[0], expected, atol=1e-5)


TABLE = NameTable(
    (
        Entry('in_proj', ('query', 'key', 'value'), split(3, DENSE)),
        Entry('norm.weight', 'norm/scale'),
        Entry('steps', 'steps'),
    ),
    unused=('head.*',),
)
TREE = {
    **{name: jnp.ones((4, 2)) for name in ('query', 'key', 'value')},
    'norm': {'scale': jnp.ones(4)},
    'steps': jnp.array(3),
}
WEIGHTS = {
    'in_proj': np.arange(24, dtype=np.float64).reshape(6, 4),
    'norm.weight': np.arange(4, dtype=np.float16),
    'steps': np.array(7),
    'head.bias': np.zeros(2),
}


def test_arrays_find_their_places_with_the_dtype_that_stands_there():
    found, report = TABLE.to_tree(WEIGHTS, TREE)
    assert report == Report(loaded=('in_proj', 'norm.weight', 'steps'), unused=('head.bias',))
    tree = unflatten(found)
    assert jax.tree.structure(tree) == jax.tree.structure(TREE)
    assert jax.tree.map(lambda leaf: leaf.dtype, tree) == jax.tree.map(lambda leaf: leaf.dtype, TREE)
    np.testing.assert_array_equal(tree['key'], WEIGHTS['in_proj'][2:4].T)
    assert tree['steps'].shape == ()
    original = TABLE.to_original(tree)
    assert all(array.flags.c_contiguous for array in original.values())
    for name, array in original.items():
        np.testing.assert_array_equal(array, WEIGHTS[name])


def test_every_name_is_in_exactly_one_list():
    weights = {'in_proj': np.zeros((6, 5)), 'steps': np.array(1), 'head.bias': np.zeros(2), 'x': np.zeros(2)}
    found, report = TABLE.to_tree(weights, TREE)
    assert set(found) == {'steps'}
    assert report == Report(
        loaded=('steps',),
        unused=('head.bias',),
        missing=('norm.weight',),
        unexpected=('x',),
        mismatched=('in_proj: (6, 5), expected (6, 4)',),
    )
    assert report.problems() == (
        '1 missing (norm.weight), 1 unexpected (x), 1 of another shape or kind (in_proj: (6, 5), expected (6, 4))'
    )
    _, report = TABLE.to_tree(weights, TREE, ignore=['in_*', 'norm.weight', 'x'])
    assert report == Report(loaded=('steps',), unused=('head.bias',), ignored=('in_proj', 'norm.weight', 'x'))
    assert report.problems() == ''


def test_a_long_list_is_counted():
    assert Report(missing=tuple('abcdef')).problems() == '6 missing (a, b, c, d and 2 more)'


def test_a_table_leads_to_every_parameter_and_only_once():
    with pytest.raises(ValueError, match='extra/bias without a name, none without a place'):
        TABLE.to_tree(WEIGHTS, {**TREE, 'extra': {'bias': jnp.ones(2)}})
    with pytest.raises(ValueError, match='none without a name, norm/scale without a place'):
        TABLE.to_tree(WEIGHTS, {key: leaf for key, leaf in TREE.items() if key != 'norm'})
    for entries in [Entry('a', 'x'), Entry('a', 'y')], [Entry('a', 'x'), Entry('b', 'x')]:
        with pytest.raises(ValueError, match='twice'):
            NameTable(tuple(entries))
    with pytest.raises(ValueError, match='the parameters lack key'):
        TABLE.to_original({key: leaf for key, leaf in TREE.items() if key != 'key'})
