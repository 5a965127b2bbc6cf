"""What was converted once: towers on disk by the content of the weights they came from, and quick to read again.

    <folder>/<content hash of the weights>/names.json              original name -> shape
    <folder>/<content hash of the weights>/<key>.safetensors       what one table of names made of them

Files are written whole or not at all, and one that is damaged is made again. Single safetensors files are not cached:
they are read as fast as a cache is.
"""

import functools
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from mmtl_jax.core.files import read_json, write_bytes_atomic, write_json_atomic
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.pretrained.content import content_hash
from mmtl_jax.pretrained.names import NameTable, Report
from mmtl_jax.pretrained.weights import INDEX, PICKLES, read_weights, weights_file

VARIABLE, OFF = 'MMTL_JAX_CACHE', 'off'
DEFAULT_FOLDER = '~/.cache/mmtl_jax/pretrained'
# Counted up when a transform begins to give other arrays under the same name.
VERSION = 1
TREE, UNUSED = 'tree/', 'unused/'


class Weights(Mapping[str, np.ndarray]):
    """Name -> array of weights, read when the first array is asked for; names and shapes may be known without.

    Attributes:
      file: what is read.
      folder: where what is converted from this content is kept; None for nowhere.
    """

    def __init__(self, file: Path, folder: Path | None = None):
        self.file, self.folder = file, folder

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return read_weights(self.file)

    @property
    def read(self) -> bool:
        """Whether the file was read."""
        return '_arrays' in vars(self)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        if self.folder is not None:
            try:
                return {name: tuple(shape) for name, shape in read_json(self.folder / 'names.json').items()}
            # Not there yet, damaged, or not for us to read.
            except (OSError, ValueError, AttributeError, TypeError):
                pass
        return {name: array.shape for name, array in self._arrays.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def open_weights(path: str | Path, cache: bool | str | Path | None = None) -> Weights:
    """Returns the weights of `path`, read as late as possible.

    Args:
      path: file or folder of weights, as `read_weights` takes it.
      cache: folder for what is converted from pickles and from models in several files. By default the environment's
        `MMTL_JAX_CACHE`, or else `~/.cache/mmtl_jax/pretrained`; False, or `MMTL_JAX_CACHE=off`, for none.

    Raises:
      ValueError: there are no weights.
    """
    file = weights_file(path)
    if cache is None or cache is True:
        cache = os.environ.get(VARIABLE) or DEFAULT_FOLDER
    slow = file.suffix in PICKLES or file.name.endswith(INDEX)
    if not slow or cache is False or cache == OFF:
        return Weights(file)
    return Weights(file, Path(cache).expanduser() / content_hash(file))


def convert(
    weights: Mapping[str, np.ndarray], names: NameTable, expected: PyTree, ignore: tuple[str, ...] = ()
) -> tuple[dict[str, np.ndarray], Report, dict[str, np.ndarray]]:
    """Returns path -> array, the report of every name, and the arrays that the module has no place for.

    What `names.to_tree` makes of `Weights` with a cache is read from there, or kept there if every parameter was found.

    Args:
      weights: original name -> array.
      names: where each goes.
      expected: the module's parameters, or their shapes.
      ignore: patterns of original names whose absence, presence or shape is no problem.
    """
    places = flatten_with_paths(expected)
    file = _entry(weights, names, places, ignore)
    # Weights that were read all the same, because the list of their names was lost, are kept anew.
    kept = None if file is None or weights.read else _read(file)
    if kept is not None:
        return kept
    found, report = names.to_tree(weights, expected, ignore=ignore)
    unused = {name: weights[name] for name in report.unused}
    if file is not None and set(found) == set(places):
        try:
            _write(file, found, report, unused)
            write_json_atomic(file.parent / 'names.json', {name: weights[name].shape for name in weights})
        # Weights that were read are worth more than a cache.
        except OSError as error:
            warnings.warn(
                f'converted weights are not cached: {error}; give another folder as {VARIABLE}, or {VARIABLE}={OFF}.',
                stacklevel=2,
            )
    return found, report, unused


def _entry(
    weights: Mapping[str, np.ndarray], names: NameTable, places: Mapping[str, Array], ignore: tuple[str, ...]
) -> Path | None:
    """Returns the file of this conversion: its name tells all that it depends on beside the content of the weights."""
    folder = getattr(weights, 'folder', None)
    if folder is None or not all(entry.transform.name for entry in names.entries):
        return None
    table = [(entry.original, entry.paths, entry.transform.name) for entry in names.entries]
    shapes = {path: (leaf.shape, str(np.dtype(leaf.dtype))) for path, leaf in places.items()}
    key = json.dumps([VERSION, table, names.unused, shapes, ignore], sort_keys=True)
    return folder / f'{hashlib.sha256(key.encode()).hexdigest()}.safetensors'


def _write(file: Path, found: Mapping[str, np.ndarray], report: Report, unused: Mapping[str, np.ndarray]) -> None:
    arrays = {TREE + path: array for path, array in found.items()}
    arrays |= {UNUSED + name: np.asarray(array, order='C') for name, array in unused.items()}
    about = json.dumps({'report': vars(report), 'checksum': _checksum(arrays)})
    write_bytes_atomic(file, safetensors.numpy.save(arrays, metadata={'about': about}))


def _read(file: Path) -> tuple[dict[str, np.ndarray], Report, dict[str, np.ndarray]] | None:
    """Returns what was kept; None if there is nothing, or if it is damaged."""
    try:
        with safetensors.safe_open(file, 'np') as opened:
            about = json.loads(opened.metadata()['about'])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, no mapping
        if _checksum(arrays) != about['checksum']:
            return None
        report = Report(**{kind: tuple(names) for kind, names in about['report'].items()})
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, KeyError):
        return None

    def below(part: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}

    return below(TREE), report, below(UNUSED)


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """Returns the CRC-32 of names and numbers, which finds damage; it is several times as fast as a hash."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].reshape(-1).view(np.uint8), zlib.crc32(name.encode(), total))
    return total
