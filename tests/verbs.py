"""The verbs as a test calls them: in this process, by their command line."""

import json
import os
import pathlib
import sys
import warnings

import pytest

from mmtl_jax import evaluate, export, predict, train
from tests.conftest import CACHE

TINY = 'tests/configs/tiny.py'
# For the verbs in a process of their own, with the settings of conftest.py.
ENVIRONMENT = {
    **os.environ,
    'JAX_NUM_CPU_DEVICES': '8',
    'JAX_COMPILATION_CACHE_DIR': str(CACHE),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
}
# What a row says of the machine rather than of the model.
OF_THE_MACHINE = ('seconds', 'examples_per_second', 'input_wait')


def call(verb, *arguments: str) -> int:
    """Returns the exit code of `verb` (train, evaluate, predict or export) with `arguments`."""
    main = {'train': train, 'evaluate': evaluate, 'predict': predict, 'export': export}[verb].main
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # ml_collections loads config files through importlib's old interface.
        warnings.filterwarnings('ignore', message='the load_module', category=DeprecationWarning)
        patch.setattr(sys, 'argv', [f'mmtl_jax.{verb}', *arguments])
        return main()


def train_tiny(workdir: pathlib.Path, *arguments: str, config: str = TINY) -> int:
    """Returns the exit code of a training in `workdir`."""
    return call('train', f'--config={config}', f'--workdir={workdir}', *arguments)


def rows_of(workdir: pathlib.Path) -> list[dict]:
    """Returns the rows of `metrics.jsonl`, without what depends on the machine."""
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in OF_THE_MACHINE} for row in rows]


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the content of every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def edited(folder: pathlib.Path, edit: str, base: str = 'tests.configs.tiny', argument: str = '') -> str:
    """Returns the path of a config that is `base`, with its argument, after the statements `edit`."""
    path = folder / 'edited.py'
    lines = (f'config = base.get_config({argument!r}).unlock()', edit, 'return config')
    path.write_text(f'import {base} as base\n\n\ndef get_config():\n    ' + '\n    '.join(lines) + '\n')
    return str(path)


def one_error(capsys) -> str:
    """Returns the sentence of the only line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    return line.removeprefix('error: ')
