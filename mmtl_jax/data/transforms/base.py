"""What a transform is: a function on one example that says what it reads and writes."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Example = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Transform:
    """One step on one example.

    Attributes:
      name: the factory's name, for error messages.
      apply: `(example) -> example`, or `(example, rng) -> example` if `random`. It returns a new mapping and leaves
        its argument and the arrays in it alone.
      reads: the keys it needs; the pipeline decodes and keeps no others.
      writes: the keys it sets.
      random: draws from `rng`; only allowed under `augment`.
      growth: how many times longer the written sequences can become; the length buckets allow for it.
      partners: `apply` also takes `draw(rng) -> example`, which gives another example of the data set as it is before
        `augment`, or None where there is no data set; only with `random`.
      moves: things in a picture are elsewhere afterwards; boxes and masks must be among `writes`, or they are wrong.
    """

    name: str
    apply: Callable[..., Example]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    random: bool = False
    growth: float = 1.0
    partners: bool = False
    moves: bool = False

    def __call__(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        draw: Callable[[np.random.Generator], Example] | None = None,
    ) -> Example:
        """Returns the transformed example."""
        if self.partners:
            return self.apply(example, rng, draw)
        return self.apply(example, rng) if self.random else self.apply(example)


def on_key(
    name: str,
    function: Callable[..., Any],
    key: str,
    out: str | None = None,
    *,
    random: bool = False,
    growth: float = 1.0,
    moves: bool = False,
) -> Transform:
    """Returns a transform that sets `out` (default: `key`) to `function(value of key)`; missing stays missing."""
    out = out or key

    def apply(example: Example, *rng: np.random.Generator) -> Example:
        value = example.get(key)
        return {**example, out: None if is_missing(value) else function(value, *rng)}

    return Transform(name, apply, reads=(key,), writes=(out,), random=random, growth=growth, moves=moves)


def as_transform(function: Callable[..., Example], name: str) -> Callable[..., Example]:
    """Returns `function` if it is a `Transform`, else checks that it takes `(example)` or `(example, rng)`."""
    if isinstance(function, Transform):
        return function
    if not callable(function):
        raise ValueError(f'transform {name!r} must build a function on one example, got {type(function).__name__}.')
    return function


def is_random(function: Callable[..., Example]) -> bool:
    """Returns whether a transform takes a random generator beside the example."""
    if isinstance(function, Transform):
        return function.random
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return len(required) > 1


def is_missing(value: Any) -> bool:
    """Returns whether an input is missing: None, '', nothing in it, a picture of at most one pixel, or NaN only."""
    if value is None or (isinstance(value, str | bytes) and not value):
        return True
    if not isinstance(value, np.ndarray):
        return isinstance(value, float | np.floating) and math.isnan(value)
    if value.size == 0:
        return True
    if value.ndim == 3 and value.shape[0] * value.shape[1] <= 1:
        return True
    # The first number decides in nearly every case, without a pass over all of them.
    return value.dtype.kind == 'f' and math.isnan(value.item(0)) and bool(np.isnan(value).all())


def check_rate(name: str, rate: float) -> float:
    """Returns `rate` if it is a probability.

    Raises:
      ValueError: it is not between 0 and 1.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f'{name} must be between 0 and 1, got {rate}.')
    return rate
