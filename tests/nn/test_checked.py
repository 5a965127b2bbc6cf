"""Modules that a config names refuse sizes and rates that cannot be meant, whatever family they belong to."""

import dataclasses
import math

import pytest

from mmtl_jax import encoders, fusion, heads, sharing
from mmtl_jax.nn import CheckedModule

CLASSES = {
    f'{family.__name__.rsplit(".", 1)[-1]}.{name}': getattr(family, name)
    for family in (encoders, fusion, heads, sharing)
    for name in family.__all__
    if isinstance(getattr(family, name), type)
}
GIVEN = {'tasks': ('a', 'b'), 'base': None, 'modalities': ('image', 'text'), 'max_slots': 2}


def make(cls, **arguments):
    """Returns a module with a number, or what is `GIVEN`, for every field that has no default."""
    needed = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    return cls(**{**{name: GIVEN.get(name, 2) for name in needed}, **arguments})


def fields_of(kind):
    """Returns pairs of a class and a field of this type, as parameters."""
    return [
        pytest.param(cls, field, id=f'{name}.{field.name}')
        for name, cls in CLASSES.items()
        for field in dataclasses.fields(cls)
        if field.type == kind or field.type == kind | None
    ]


def test_every_module_of_a_family_is_checked():
    assert [name for name, cls in CLASSES.items() if not issubclass(cls, CheckedModule)] == []


@pytest.mark.parametrize(('cls', 'field'), fields_of(int))
def test_a_size_is_a_whole_number_and_large_enough(cls, field):
    least = cls.least_sizes.get(field.name, 0 if field.default == 0 else 1)
    assert getattr(make(cls, **{field.name: least}), field.name) == least
    with pytest.raises(ValueError, match=f'{cls.__name__}: {field.name} must be at least {least}, got {least - 1}.'):
        make(cls, **{field.name: least - 1})
    with pytest.raises(ValueError, match=f'{cls.__name__}: {field.name} must be a whole number, got 2.0.'):
        make(cls, **{field.name: 2.0})


@pytest.mark.parametrize(('cls', 'field'), [case for case in fields_of(float) if case.values[1].name.endswith('_rate')])
@pytest.mark.parametrize('rate', [-0.1, 1.0, 20.0, math.nan])
def test_a_rate_is_a_probability_below_one(cls, field, rate):
    with pytest.raises(ValueError, match=f'{cls.__name__}: {field.name} must be at least 0 and below 1, got {rate}.'):
        make(cls, **{field.name: rate})


@pytest.mark.parametrize(('cls', 'field'), fields_of(tuple[int, ...]))
def test_the_items_of_a_tuple_of_sizes_are_looked_at_too(cls, field):
    with pytest.raises(ValueError, match=f'{cls.__name__}: {field.name} must be at least 1, got 0.'):
        make(cls, **{field.name: (4, 0)})


@pytest.mark.parametrize('dtype', ['bfloat61', 'int8', 3])
def test_a_dtype_is_one_of_floats(dtype):
    with pytest.raises(
        ValueError, match=f"ImageCNN: dtype must be a type of floats, such as 'bfloat16', got {dtype!r}"
    ):
        encoders.ImageCNN(width=4, dtype=dtype)


def test_numbers_that_are_no_sizes_are_left_alone():
    assert fusion.MatrixFactorization(width=2, ridge=3.0).ridge == 3.0
    with pytest.raises(ValueError, match='ImageCNN: width must be a whole number, got True'):
        encoders.ImageCNN(width=True)
