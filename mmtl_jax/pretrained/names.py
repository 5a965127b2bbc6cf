"""From the original names and layouts of weights to a module's parameters and back, to the bit."""

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import PyTree

# How many names an error lists before it only counts.
SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Transform:
    """An invertible change of layout.

    Attributes:
      forward: one original array -> a tuple of arrays of this library.
      backward: these arrays -> the original one.
      name: tells it from all others in the key of a cache; what a table with a nameless one converts is not cached.
    """

    forward: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    backward: Callable[..., np.ndarray]
    name: str = ''


SAME = Transform(lambda array: (array,), lambda array: array, 'same')
# [out, in] -> [in, out]
DENSE = Transform(lambda array: (array.T,), lambda array: array.T, 'dense')
# [out, in, *window] -> [*window, in, out]
CONV = Transform(
    lambda array: (np.moveaxis(array, (0, 1), (-1, -2)),), lambda array: np.moveaxis(array, (-1, -2), (0, 1)), 'conv'
)


def leading(ones: int) -> Transform:
    """Returns the layout with that many axes of size 1 in front."""
    axes = tuple(range(ones))
    return Transform(
        lambda array: (np.expand_dims(array, axes),), lambda array: np.squeeze(array, axes), f'leading({ones})'
    )


def heads_in(num_heads: int) -> Transform:
    """Returns the layout of a projection to heads: `[heads * h, in]` -> `[in, heads, h]`, of a bias `[heads, h]`."""

    def forward(array: np.ndarray) -> tuple[np.ndarray]:
        return (array.T.reshape(*array.shape[1:], num_heads, array.shape[0] // num_heads),)

    def backward(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1]).T

    return Transform(forward, backward, f'heads_in({num_heads})')


def heads_out(num_heads: int) -> Transform:
    """Returns the layout of a projection from heads, `[out, heads * h]` -> `[heads, h, out]`."""

    def forward(array: np.ndarray) -> tuple[np.ndarray]:
        return (array.T.reshape(num_heads, array.shape[1] // num_heads, array.shape[0]),)

    def backward(array: np.ndarray) -> np.ndarray:
        return array.reshape(array.shape[0] * array.shape[1], array.shape[2]).T

    return Transform(forward, backward, f'heads_out({num_heads})')


def split(parts: int, then: Transform = SAME) -> Transform:
    """Returns the way from an array that holds `parts` equal ones along its first axis, each laid out by `then`."""

    def forward(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(then.forward(part)[0] for part in np.split(array, parts))

    def backward(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate([then.backward(array) for array in arrays])

    return Transform(forward, backward, then.name and f'split({parts}, {then.name})')


@dataclasses.dataclass(frozen=True)
class Entry:
    """One original array and where it goes.

    Attributes:
      original: its name in the file.
      path: where it goes in the tree of parameters, `a/b/c`; a tuple of paths for an array that is split.
      transform: what happens to it on the way.
    """

    original: str
    path: str | tuple[str, ...]
    transform: Transform = SAME

    @property
    def paths(self) -> tuple[str, ...]:
        """Returns `path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every name, each in exactly one tuple; sorted.

    Attributes:
      loaded: names whose arrays are in the tree.
      unused: names that are known and that the module has no place for, such as the head of the pretraining task.
      ignored: names that would stand below, and that the caller said to ignore.
      missing: names that the module needs and that are not in the weights.
      unexpected: names in the weights that nobody knows.
      mismatched: 'name: (shape), expected (shape)'.
    """

    loaded: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    def problems(self) -> str:
        """Returns what is wrong in a few words, '' if nothing is."""
        parts = {'missing': self.missing, 'unexpected': self.unexpected, 'of another shape or kind': self.mismatched}
        return ', '.join(f'{len(names)} {what} ({_some(names)})' for what, names in parts.items() if names)

    def __str__(self) -> str:
        """Returns how many names of each kind there are."""
        counts = {field.name: len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return ', '.join(f'{count} {what}' for what, count in counts.items() if count)


@dataclasses.dataclass(frozen=True)
class NameTable:
    """Every original name of an architecture and its place in a module's parameters.

    Attributes:
      entries: one for each original array.
      unused: patterns of original names (`fnmatch`) that the module has no place for.
    """

    entries: tuple[Entry, ...]
    unused: tuple[str, ...] = ()

    def __post_init__(self):
        originals = [entry.original for entry in self.entries]
        paths = [path for entry in self.entries for path in entry.paths]
        for names in (originals, paths):
            twice = [name for name, count in collections.Counter(names).items() if count > 1]
            if twice:
                raise ValueError(f'a table of names has {twice[0]!r} twice.')

    def to_tree(
        self, weights: Mapping[str, np.ndarray], expected: PyTree, *, ignore: Iterable[str] = ()
    ) -> tuple[dict[str, np.ndarray], Report]:
        """Returns path -> array for every parameter that was found in `weights`, and the report.

        Args:
          weights: original name -> array.
          expected: the module's parameters, or their shapes; arrays get the dtype that stands there.
          ignore: patterns of original names whose absence, presence or shape is no problem.

        Raises:
          ValueError: the table does not lead to exactly the parameters in `expected`.
        """
        places = flatten_with_paths(expected)
        listed = {path for entry in self.entries for path in entry.paths}
        if listed != set(places):
            raise ValueError(
                f'a table of names must lead to every parameter: {_some(sorted(set(places) - listed)) or "none"} '
                f'without a name, {_some(sorted(listed - set(places))) or "none"} without a place in the module.'
            )
        found, kinds = {}, collections.defaultdict(list)
        for entry in self.entries:
            shapes = [places[path] for path in entry.paths]
            if entry.original not in weights:
                kinds['missing'].append((entry.original, entry.original))
                continue
            array = weights[entry.original]
            wrong = _mismatch(array, entry, shapes)
            if wrong:
                kinds['mismatched'].append((entry.original, f'{entry.original}: {wrong}'))
                continue
            kinds['loaded'].append((entry.original, entry.original))
            for path, shape, part in zip(entry.paths, shapes, entry.transform.forward(array), strict=True):
                found[path] = np.asarray(part, shape.dtype, order='C')
        for name in set(weights) - {entry.original for entry in self.entries}:
            kinds['unused' if _matches(name, self.unused) else 'unexpected'].append((name, name))
        for kind in ('missing', 'unexpected', 'mismatched'):
            kinds['ignored'] += [(name, name) for name, _ in kinds[kind] if _matches(name, ignore)]
            kinds[kind] = [(name, text) for name, text in kinds[kind] if not _matches(name, ignore)]
        return found, Report(**{kind: tuple(sorted(text for _, text in pairs)) for kind, pairs in kinds.items()})

    def to_original(self, tree: PyTree) -> dict[str, np.ndarray]:
        """Returns original name -> array for a module's parameters.

        Raises:
          ValueError: the tree lacks a parameter.
        """
        leaves = flatten_with_paths(tree)
        lost = sorted({path for entry in self.entries for path in entry.paths} - set(leaves))
        if lost:
            raise ValueError(f'the parameters lack {_some(lost)}; give the tree of the module that was converted.')
        return {
            entry.original: np.asarray(
                entry.transform.backward(*(np.asarray(leaves[path]) for path in entry.paths)), order='C'
            )
            for entry in self.entries
        }


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns path -> leaf as nested dictionaries."""
    tree = {}
    for path, leaf in leaves.items():
        *folders, name = path.split('/')
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = leaf
    return tree


def _mismatch(array: np.ndarray, entry: Entry, shapes: list[Any]) -> str:
    """Returns why `array` cannot become parameters of these shapes, '' if it can."""
    original = entry.transform.backward(*(np.empty(shape.shape, np.bool_) for shape in shapes)).shape
    if array.shape != original:
        return f'{array.shape}, expected {original}'
    if any(jnp.issubdtype(shape.dtype, jnp.inexact) for shape in shapes) and not jnp.issubdtype(
        array.dtype, jnp.inexact
    ):
        return f'{array.dtype}, expected floating-point numbers'
    return ''


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:SHOWN]) + (f' and {len(names) - SHOWN} more' if len(names) > SHOWN else '')
