"""Files are whole or absent, JSON is valid, and a full disk is told in one sentence."""

import concurrent.futures
import errno
import gc
import io
import json
import math
import os
import pathlib
import stat
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.core import files


def test_what_is_written_is_read(tmp_path):
    value = {'name': 'пингвин', 'widths': [1, 2.5], 'on': True, 'none': None, 'nested': {'a': {}}}
    files.write_json_atomic(tmp_path / 'new' / 'config.json', value)
    assert files.read_json(tmp_path / 'new' / 'config.json') == value
    assert 'пингвин' in (tmp_path / 'new' / 'config.json').read_text(encoding='utf-8')
    assert os.listdir(tmp_path / 'new') == ['config.json']


def test_values_become_plain():
    value = {
        1: (np.float32(0.5), np.int64(3), np.bool_(True)),
        'arrays': [np.arange(2), jnp.ones((1, 2)), jnp.zeros((), 'bfloat16')],
        'path': pathlib.Path('a/b'),
        'bad': [math.nan, math.inf, np.float32('-inf'), np.array([1.0, np.nan])],
        'dtype': np.dtype('int32'),
    }
    assert files.plain(value) == {
        '1': [0.5, 3, True],
        'arrays': [[0, 1], [[1.0, 1.0]], 0.0],
        'path': 'a/b',
        'bad': [None, None, None, [1.0, None]],
        'dtype': 'int32',
    }
    assert json.dumps(files.plain(value), allow_nan=False)


def test_the_old_file_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / 'summary.json'
    files.write_json_atomic(path, {'step': 1})
    monkeypatch.setattr(os, 'fsync', _fails(errno.ENOSPC))
    with pytest.raises(OSError, match=r'no space left .*summary.json; .*free some space') as caught:
        files.write_json_atomic(path, {'step': 2})
    assert caught.value.errno == errno.ENOSPC
    assert files.read_json(path) == {'step': 1}
    assert os.listdir(tmp_path) == ['summary.json']


def test_other_errors_stay_as_they_are():
    with pytest.raises(PermissionError), files.explain_full_disk('x'):
        raise PermissionError(errno.EACCES, 'no')


def test_a_new_file_has_the_usual_permissions(tmp_path):
    files.write_bytes_atomic(tmp_path / 'atomic', 'text')
    (tmp_path / 'usual').write_text('text')
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ('atomic', 'usual')]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'there is no file .*config.json'),
        (b'', 'is empty'),
        (b'{"a": 1, "b"', 'is cut off or damaged'),
        (b'\xff\xfe\x00', 'is no JSON text'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / 'config.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read_json(path)


def _fails(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


class Garbage:
    """What only a garbage collection removes, which takes a moment in which another thread may go on."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        for _ in range(200):
            pass


def test_arrays_are_read_in_several_threads_while_garbage_is_collected():
    buffer, values = io.BytesIO(), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(buffer, values)

    def read(_):
        Garbage()
        return files.array_of(buffer.getvalue())

    # With numpy's own function this fails within some 600 of the 4,000.
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5)
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(read, range(4000)))
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
    assert all(np.array_equal(array, values) for array in found)
