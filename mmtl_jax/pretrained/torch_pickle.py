"""Tensors out of PyTorch's pickles, without PyTorch and without running what the pickle asks for.

A pickle is a program. The reader here knows the six names that a dictionary of tensors needs and refuses every other,
so that a file can make it neither import nor call anything.
"""

import collections
import dataclasses
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = {
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'BFloat16Storage': jnp.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}
# The first of the five pickles that torch.save wrote before version 1.6, and the second.
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclasses.dataclass
class _Storage:
    """The numbers that tensors are views of; `values` is None until the file's second part is read."""

    dtype: np.dtype
    size: int
    values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor as the pickle describes it; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns the tensor, in row-major order.

        Raises:
          ValueError: it reaches beyond its storage.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        if any(type(n) is not int or n < 0 for n in numbers) or len(self.shape) != len(self.strides):
            raise ValueError(f'a tensor of shape {self.shape} has strides {self.strides}, offset {self.offset}')
        if 0 in self.shape:
            return np.zeros(self.shape, self.storage.dtype)
        # A pickle may write into what it builds, so only the array itself tells how long it is.
        values = self.storage.values
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if not isinstance(values, np.ndarray) or last >= len(values):
            raise ValueError(f'a tensor of shape {self.shape} reaches beyond its storage')
        strides = [stride * values.itemsize for stride in self.strides]
        return np.asarray(np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides), order='C')


class _RefusedError(Exception):
    """The pickle asks for a name that no tensor needs."""


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and the dictionary that holds them, and nothing else."""

    def __init__(self, file: Any, storage: Callable[[str, np.dtype, int], _Storage]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ('torch', 'torch.storage') and name in DTYPES:
            return name
        # New functions each time: a pickle may set attributes of what it gets.
        known = {
            ('torch._utils', '_rebuild_tensor'): lambda *arguments: _view(*arguments),
            ('torch._utils', '_rebuild_tensor_v2'): lambda *arguments: _view(*arguments),
            ('torch._utils', '_rebuild_parameter'): lambda view, *_: view,
            ('torch', 'Size'): tuple,
            ('collections', 'OrderedDict'): collections.OrderedDict,
        }
        if (module, name) not in known:
            raise _RefusedError(f'{module}.{name}')
        return known[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, name, key, _, size, *view = identifier
        if kind != 'storage' or name not in DTYPES or type(size) is not int or any(view):
            raise ValueError(f'a storage is described as {identifier!r}')
        return self._storage(str(key), np.dtype(DTYPES[name]), size)


def _view(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _View:
    if not isinstance(storage, _Storage):
        raise ValueError(f'a tensor is a view of {storage!r}')
    return _View(storage, offset, tuple(shape), tuple(strides))


def read_torch_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """Returns name -> array from a file that `torch.save` wrote, of today's zip format or of the one before 1.6.

    The file holds a dictionary of tensors, or one under the key `state_dict`, `model_state` or `model`.

    Raises:
      ValueError: the file is cut off, holds no tensors, or its pickle asks for anything but tensors.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        loaded = _read_zip(data) if data.startswith(b'PK') else _read_legacy(data)
        return {name: view.array() for name, view in _tensors(loaded).items()}
    except _RefusedError as error:
        raise ValueError(
            f'{path} holds a pickle that asks for {error}, which may run code; only tensors in plain dictionaries are '
            f'read: ask for a .safetensors file, or save its state_dict() alone.'
        ) from None
    # What a damaged pickle raises is anything.
    except Exception as error:
        raise ValueError(
            f'{path} is no file of tensors that torch.save wrote, or is cut off or damaged '
            f'({type(error).__name__}: {error}); get it again.'
        ) from error


def _tensors(loaded: Any) -> dict[str, _View]:
    """Returns the dictionary of tensors in what was unpickled."""
    for key in ('state_dict', 'model_state', 'model'):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f'it holds a {type(loaded).__name__} instead of a dictionary of tensors')
    others = [str(name) for name, value in loaded.items() if not (isinstance(name, str) and isinstance(value, _View))]
    if others:
        raise ValueError(f'{others[0]!r} in its dictionary is no tensor')
    return dict(loaded)


def _read_zip(data: bytes) -> Any:
    """Returns what `torch.save` pickled since version 1.6: a zip with `data.pkl` and a file for each storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(pickles) != 1:
            raise ValueError('the zip holds no data.pkl')
        folder = pickles[0].removesuffix('data.pkl')
        if f'{folder}byteorder' in archive.namelist() and archive.read(f'{folder}byteorder') != b'little':
            raise ValueError('its numbers are big-endian')
        storages = {}

        def storage(key: str, dtype: np.dtype, size: int) -> _Storage:
            if key not in storages:
                values = np.frombuffer(archive.read(f'{folder}data/{key}'), dtype.newbyteorder('<'))
                storages[key] = _Storage(dtype, len(values), values)
            if (storages[key].dtype, storages[key].size) != (dtype, size):
                raise ValueError(f'storage {key} holds {storages[key].size} numbers instead of {size}')
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_legacy(data: bytes) -> Any:
    """Returns what `torch.save` pickled before version 1.6: five pickles in a row, then the numbers."""
    file, storages = io.BytesIO(data), {}

    def storage(key: str, dtype: np.dtype, size: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, size))

    magic, protocol, system, loaded, keys = (_Unpickler(file, storage).load() for _ in range(5))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or not system['little_endian']:
        raise ValueError('it does not begin as torch.save begins a file')
    for key in keys:
        (size,) = np.frombuffer(file.read(8), '<i8')
        place = storages[str(key)]
        place.values = np.frombuffer(file.read(int(size) * place.dtype.itemsize), place.dtype)
        if not size == place.size == len(place.values):
            raise ValueError(f'storage {key} holds {len(place.values)} numbers instead of {place.size}')
    return loaded
