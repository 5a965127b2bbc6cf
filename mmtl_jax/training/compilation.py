"""Compilation ahead of time: every shape that a run will meet, side by side, before its first step."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from mmtl_jax.core.compiler import compiler_options


class CompiledByShape:
    """A jitted function that compiles once per shape of its arguments, and counts.

    Attributes:
      count: compilations so far.
    """

    def __init__(self, function: Callable[..., Any], **jit_options: Any):
        """Wraps `function`; `jit_options` are those of `jax.jit`."""
        self._jitted = jax.jit(function, **jit_options)
        self._compiled: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, *arguments: Any) -> Any:
        """Returns `function(*arguments)`."""
        key = _shapes(arguments)
        if key not in self._compiled:
            self.compile(*arguments)
        return self._compiled[key](*arguments)

    def knows(self, *arguments: Any) -> bool:
        """Returns whether arguments of these shapes need no compilation."""
        return _shapes(arguments) in self._compiled

    def compile(self, *arguments: Any) -> None:
        """Compiles for the shapes of the arguments, if that is still to be done."""
        key = _shapes(arguments)
        if key in self._compiled:
            return
        compiled = self._jitted.lower(*arguments).compile(compiler_options=compiler_options())
        with self._lock:
            self._compiled[key] = compiled
            self.count += 1


def warm_up(calls: Sequence[tuple[CompiledByShape, tuple[Any, ...]]], *, num_threads: int = 2) -> None:
    """Compiles each function for the shapes of its arguments, which are not run; several at a time."""
    different = {(id(function), _shapes(arguments)): (function, arguments) for function, arguments in calls}
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(lambda call: call[0].compile(*call[1]), different.values()))


def _shapes(arguments: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
