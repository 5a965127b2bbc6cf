"""Compilation ahead of time: once per shape, counted, whoever asks first."""

import jax
import jax.numpy as jnp

from mmtl_jax.training.compilation import CompiledByShape, warm_up


def test_each_shape_compiles_once():
    double = CompiledByShape(lambda x: 2 * x)
    for length in (3, 4, 3, 4, 3):
        assert double(jnp.ones(length)).tolist() == [2.0] * length
    assert double.count == 2


def test_what_is_warmed_up_never_compiles_again():
    total = CompiledByShape(lambda tree: tree['a'].sum() + tree['b'])
    double = CompiledByShape(lambda x: 2 * x)
    shapes = [{'a': jax.ShapeDtypeStruct((n,), jnp.float32), 'b': jnp.zeros(())} for n in (2, 5, 2)]
    warm_up([(double, (jnp.ones(3),)), *((total, (shape,)) for shape in shapes)], num_threads=2)
    known = {'a': jnp.ones(5), 'b': jnp.ones(())}
    assert total.knows(known)
    assert not total.knows({**known, 'a': jnp.ones(6)})
    assert float(total(known)) == 6.0
    assert (total.count, double.count) == (2, 1)


def test_another_dtype_or_structure_is_another_program():
    same = CompiledByShape(lambda x: x)
    same(jnp.ones(2))
    same(jnp.ones(2, jnp.int32))
    same({'x': jnp.ones(2)})
    assert same.count == 3


def test_donated_arguments_are_used_up():
    grow = CompiledByShape(lambda x: x + 1, donate_argnums=0)
    old = jnp.zeros(4)
    new = grow(old)
    assert new.tolist() == [1.0] * 4
    assert old.is_deleted()
