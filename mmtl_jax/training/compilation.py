"""Compilation ahead of time: every shape that a run will meet, side by side, before its first step."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


class CompiledByShape:
    """A jitted function that compiles once per shape of its arguments, and counts.

    Attributes:
      count: compilations so far.
      seconds: wall time that callers waited for them.
    """

    def __init__(self, function: Callable[..., Any], **jit_options: Any):
        """Wraps `function`; `jit_options` are those of `jax.jit`."""
        self._jitted = jax.jit(function, **jit_options)
        self._compiled: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self.count = 0
        self.seconds = 0.0

    def warm_up(self, calls: Sequence[tuple[Any, ...]], *, num_threads: int = 2) -> None:
        """Compiles for the shapes of each of `calls`, tuples of arguments that are not run."""
        began = time.perf_counter()
        different = {_shapes(arguments): arguments for arguments in calls}
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(self._compile, different.values()))
        self.seconds += time.perf_counter() - began

    def knows(self, *arguments: Any) -> bool:
        """Returns whether arguments of these shapes need no compilation."""
        return _shapes(arguments) in self._compiled

    def __call__(self, *arguments: Any) -> Any:
        """Returns `function(*arguments)`."""
        key = _shapes(arguments)
        if key not in self._compiled:
            began = time.perf_counter()
            self._compile(arguments)
            self.seconds += time.perf_counter() - began
        return self._compiled[key](*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> None:
        key = _shapes(arguments)
        if key in self._compiled:
            return
        compiled = self._jitted.lower(*arguments).compile()
        with self._lock:
            self._compiled[key] = compiled
            self.count += 1


def _shapes(arguments: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
