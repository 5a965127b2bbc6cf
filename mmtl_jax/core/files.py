"""Files that are whole or absent: written beside their place and renamed, so that a kill leaves the old or the new."""

import contextlib
import errno
import io
import json
import math
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Path = str | os.PathLike[str]
_ONE_AT_A_TIME = threading.Lock()


def plain(value: Any) -> Any:
    """Returns `value` as JSON knows it.

    Arrays and scalars of numpy and JAX become lists and numbers, tuples lists, paths text, keys text. NaN and the
    infinities become None, because JSON has no word for them. Everything else becomes its `str`.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic) or (hasattr(value, '__array__') and hasattr(value, 'dtype')):
        return plain(np.asarray(value, dtype=_json_dtype(value.dtype)).tolist())
    return str(value)


def _json_dtype(dtype: Any) -> Any:
    # bfloat16 and the float8 types are not subtypes of numpy's own floats, and their `tolist` keeps them.
    return np.dtype(dtype) if np.dtype(dtype).kind in 'biufSU' else np.float64


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns the error of a full disk into an `OSError` that says in one sentence what to do; other errors pass."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, 'errno', None)
        # array_record reports it in words.
        if number not in (errno.ENOSPC, errno.EDQUOT) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        clear = OSError(
            f'no space left on the device (or in the quota) that holds {os.fspath(path)}; what was there before is '
            f'unharmed: free some space and give the same command again.'
        )
        clear.errno = number or errno.ENOSPC
        raise clear from error


def write_bytes_atomic(path: Path, data: bytes | str) -> None:
    """Writes `data` (text as UTF-8) to `path`, whole or not at all; missing folders are made.

    Raises:
      OSError: the file cannot be written; a full disk is told in one sentence.
    """
    path = pathlib.Path(path)
    data = data.encode('utf-8') if isinstance(data, str) else data
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
        try:
            with os.fdopen(handle, 'wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes `plain(value)` as indented JSON to `path`, whole or not at all."""
    write_bytes_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + '\n')


def array_of(content: bytes) -> np.ndarray:
    """Returns the array of a `.npy` file by what is in it; unlike `np.load`, from any number of threads.

    numpy reads the head of the file by `ast.literal_eval`, which fails now and then with a `SystemError` when a garbage
    collection lets another thread into it (python/cpython#106905).

    Raises:
      ValueError: the content is something else, or cut off.
    """
    with _ONE_AT_A_TIME:
        return np.load(io.BytesIO(content), allow_pickle=False)


def read_json(path: Path) -> Any:
    """Returns the value in the JSON file at `path`.

    Raises:
      ValueError: there is no such file, or it is empty, cut off or no JSON.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ValueError(f'there is no file {path}; is the path right, and did the run get so far?') from error
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no JSON text ({error}); delete it or bring it back from a copy.') from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = 'is empty' if not text.strip() else f'is cut off or damaged (line {error.lineno}: {error.msg})'
        raise ValueError(f'{path} {what}; delete it or bring it back from a copy.') from error
