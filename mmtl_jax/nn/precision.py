"""Arithmetic of few bits: where it begins, and where it ends."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array


def in_dtype(module: nn.Module, dtype: Any) -> nn.Module:
    """Returns the module with `dtype` for the arithmetic of all modules in it that have a field of this name.

    A module whose own `dtype` is not None keeps it, and one without such a field computes as it always does. The
    modules are those among the fields of each other, alone or in a mapping, as a model holds its parts.
    """

    def changed(name: str, value: Any) -> Any:
        if name == 'dtype':
            return dtype if value is None else value
        if isinstance(value, Mapping):
            return {key: changed(key, part) for key, part in value.items()}
        return in_dtype(value, dtype) if isinstance(value, nn.Module) and name != 'parent' else value

    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return module.clone(**{name: changed(name, value) for name, value in fields.items()})


def is_float_type(dtype: Any) -> bool:
    """Returns whether `dtype` is a type of floats, or the name of one."""
    try:
        return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False


def at_least_float32(x: Array) -> Array:
    """Returns `x` as float32 if its type has fewer bits, such as bfloat16; of the same type otherwise."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
