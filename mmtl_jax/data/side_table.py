"""Values that are computed once for a data set and kept beside it, in array_record."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from mmtl_jax.core.files import array_of, explain_full_disk, read_json, write_json_atomic
from mmtl_jax.data.sources import Source, TfdsSource
from mmtl_jax.data.transforms.base import Example

VALUES, ROWS, ABOUT = 'values.array_record', 'rows.npy', 'about.json'


@dataclasses.dataclass(frozen=True)
class SideTable:
    """One array for each row of a split; rows with the same input share one. It travels to worker processes.

    Attributes:
      folder: where it is.
    """

    folder: pathlib.Path

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder}

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """What it was made of."""
        return read_json(self.folder / ABOUT)

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        return array_of((self.folder / ROWS).read_bytes())

    @functools.cached_property
    def _values(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(str(self.folder / VALUES))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray | None:
        """Returns the array of a row, None where its input is missing."""
        number = int(self._rows[row])
        return None if number < 0 else array_of(self._values[number])


def write_side_table(
    folder: pathlib.Path, rows: Sequence[int], values: Iterable[np.ndarray], about: Mapping[str, Any]
) -> SideTable:
    """Writes a table, whole or not at all.

    Args:
      folder: where it goes; nothing may be there.
      rows: the number of each row's array among `values`, -1 for none.
      values: the arrays.
      about: what it was made of, JSON-able.
    """
    with explain_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f'.{folder.name}.'))
        try:
            with contextlib.closing(ArrayRecordWriter(str(unfinished / VALUES), 'group_size:1')) as writer:
                for value in values:
                    buffer = io.BytesIO()
                    np.save(buffer, value)
                    writer.write(buffer.getvalue())
            np.save(unfinished / ROWS, np.asarray(rows, np.int32))
            write_json_atomic(unfinished / ABOUT, about)
            # Another process may have made the same in the meantime.
            if not folder.exists():
                os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return SideTable(folder)


@dataclasses.dataclass(frozen=True)
class SourceWithTables:
    """A source whose examples have the arrays of side tables as further keys.

    Attributes:
      source: the data set.
      tables: key -> table.
    """

    source: Source
    tables: Mapping[str, SideTable]

    @property
    def name(self) -> str:
        """The data set."""
        return self.source.name

    @property
    def split(self) -> str:
        """The part of it."""
        return self.source.split

    @property
    def keys(self) -> tuple[str, ...]:
        """What an example can hold."""
        return (*self.source.keys, *self.tables)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[index], **{key: table[index] for key, table in self.tables.items()}}

    def select(self, keys: Iterable[str]) -> 'SourceWithTables':
        """Returns a source that reads and decodes these keys only."""
        keys = tuple(keys)
        selected = self.source.select(key for key in keys if key not in self.tables)
        return SourceWithTables(selected, {key: self.tables[key] for key in keys if key in self.tables})

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label, () if they have none."""
        return () if key in self.tables else self.source.class_names(key)


def distinct_rows(source: Source, keys: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Returns the first row of each different value of `keys`, and for each row the number of its value.

    A row in which a key is missing counts as a value of its own kind, like every other.
    """
    selected, seen, numbers, first = source.select(keys), {}, np.zeros(len(source), np.int32), []
    for row in range(len(source)):
        digest = _digest(selected[row], keys)
        if digest not in seen:
            seen[digest] = len(seen)
            first.append(row)
        numbers[row] = seen[digest]
    return first, numbers


def fingerprint(source: Source, keys: Sequence[str]) -> dict[str, Any]:
    """Returns what tells whether the values of `keys` are still the same, JSON-able.

    The files of a TFDS data set are known by their names and sizes; every example of another source is read.
    """
    if isinstance(source, TfdsSource):
        info = source.builder.info
        files = sorted(pathlib.Path(source.builder.data_dir).glob('*.array_record*'))
        return {
            'name': info.full_name,
            'split': source.split,
            'arguments': dict(source.builder_kwargs),
            'files': {file.name: file.stat().st_size for file in files},
        }
    selected, whole = source.select(keys), hashlib.sha256()
    for row in range(len(selected)):
        whole.update(_digest(selected[row], keys))
    return {'name': source.name, 'split': source.split, 'sha256': whole.hexdigest()}


def _digest(example: Example, keys: Sequence[str]) -> bytes:
    """Returns a hash of the values of `keys`."""
    found = hashlib.sha256()
    for key in keys:
        value = example.get(key)
        if isinstance(value, np.ndarray) and value.dtype != object:
            value = f'{value.dtype}{value.shape}'.encode() + np.ascontiguousarray(value).tobytes()
        else:
            value = value if isinstance(value, bytes) else repr(value).encode()
        found.update(len(value).to_bytes(8, 'little') + value)
    return found.digest()
