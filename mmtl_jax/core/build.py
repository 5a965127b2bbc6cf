"""Wiring by name: a config's plain values become objects, without a registry."""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def resolve(name: str, namespace: ModuleType) -> Any:
    """Returns what `name` stands for.

    Args:
      name: an entry of `namespace.__all__`, or a dotted import path such as `my_lab.fusion.Mine`.
      namespace: the package whose public list is searched.

    Raises:
      ValueError: nothing has that name; the sentence says what was probably meant.
    """
    family = namespace.__name__.rsplit('.', 1)[-1]
    if '.' in name:
        module, _, attribute = name.rpartition('.')
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f'{family}: cannot import {name!r}: {error}.') from error
    if name in namespace.__all__:
        return getattr(namespace, name)
    close = difflib.get_close_matches(name, namespace.__all__, n=1, cutoff=0.5)
    hint = f'did you mean {close[0]!r}?' if close else f'choose one of {sorted(namespace.__all__)}.'
    raise ValueError(f'no {family} {name!r}; {hint}')


def build(spec: str | Mapping[str, Any], namespace: ModuleType, **defaults: Any) -> Any:
    """Builds the object that `spec` describes.

    Args:
      spec: a name, or a mapping with `name` and keyword arguments.
      namespace: the package in whose public list the name is looked up.
      **defaults: keyword arguments that `spec` may override.

    Raises:
      ValueError: an unknown name, a spec without a name, or arguments that the target does not take.
    """
    if not isinstance(spec, (str, Mapping)):
        raise ValueError(f"a spec is a name or a mapping with 'name' and arguments, got {spec!r}.")
    arguments = {'name': spec} if isinstance(spec, str) else dict(spec)
    if not isinstance(arguments.get('name'), str):
        raise ValueError(f"a spec needs a 'name' that is text, got {arguments}.")
    name = arguments.pop('name')
    target = resolve(name, namespace)
    if not callable(target):
        raise ValueError(f'{name} is a {type(target).__name__}; name a class or a function.')
    return construct(name, target, {**defaults, **arguments})


def construct(name: str, target: Any, arguments: Mapping[str, Any]) -> Any:
    """Returns `target(**arguments)`.

    Raises:
      ValueError: `target`, called `name` in the sentence, does not take these arguments.
    """
    check_arguments(name, target, arguments)
    return target(**arguments)


def check_arguments(name: str, target: Any, arguments: Mapping[str, Any]) -> None:
    """Raises a `ValueError` that names every argument that `target` lacks or does not know."""
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and key != 'parent'
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    unknown = [] if takes_any else [key for key in arguments if key not in parameters]
    if unknown:
        close = difflib.get_close_matches(unknown[0], parameters, n=1)
        hint = f'did you mean {close[0]!r}?' if close else f'it takes {sorted(set(parameters) - {"name"})}.'
        raise ValueError(f'{name} has no argument {unknown[0]!r}; {hint}')
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in arguments]
    if missing:
        raise ValueError(f'{name} needs the argument {missing[0]!r}, got {sorted(arguments)}.')
