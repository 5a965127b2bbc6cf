"""What modules that a config or a caller makes have in common: sizes and rates that cannot be meant are refused."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn

from mmtl_jax.nn.precision import is_float_type


class CheckedModule(nn.Module):
    """A linen module that looks at its sizes and rates when it is made.

    A field of type `int` must be 1 or more; 0 or more if its default is 0, or where `least_sizes` says so. The items of
    a tuple of them must be 1 or more. A `float` whose name ends in `_rate` is a probability below 1. A `dtype` is
    one of floats, or its name.

    Raises:
      ValueError: a field is something else; class, field and value are named.
    """

    # Field -> the least that it may be, where that is another.
    least_sizes: ClassVar[Mapping[str, int]] = {}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            # A function, for flax allows no method before it has set the module up.
            _check(type(self), field, getattr(self, field.name, None))
        super().__post_init__()


def _check(owner: type[CheckedModule], field: dataclasses.Field, value: Any):
    """Raises a `ValueError` if the field cannot have this value."""
    kinds = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    if float in kinds and field.name.endswith('_rate') and not 0 <= value < 1:
        raise ValueError(f'{owner.__name__}: {field.name} must be at least 0 and below 1, got {value}.')
    if field.name == 'dtype' and not (value is None or is_float_type(value)):
        raise ValueError(f"{owner.__name__}: dtype must be a type of floats, such as 'bfloat16', got {value!r}.")
    if isinstance(value, (tuple, list)):
        sizes, least = value if any(_are_sizes(kind) for kind in kinds) else (), 1
    else:
        sizes = (value,) if int in kinds and value is not None else ()
        least = owner.least_sizes.get(field.name, 0 if field.default == 0 else 1)
    for size in sizes:
        if not isinstance(size, numbers.Integral) or isinstance(size, bool):
            raise ValueError(f'{owner.__name__}: {field.name} must be a whole number, got {size!r}.')
        if size < least:
            raise ValueError(f'{owner.__name__}: {field.name} must be at least {least}, got {size}.')


def _are_sizes(kind: Any) -> bool:
    """Returns whether a type is a tuple or a sequence of whole numbers."""
    return typing.get_origin(kind) in (tuple, Sequence) and typing.get_args(kind)[0] is int
