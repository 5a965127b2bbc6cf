"""The verbs as a test calls them: in this process, by their command line."""

import json
import pathlib
import sys

import pytest

from mmtl_jax import evaluate, predict, train

TINY = 'tests/configs/tiny.py'
# What a row says of the machine rather than of the model.
OF_THE_MACHINE = ('seconds', 'examples_per_second', 'input_wait')


def call(verb, *arguments: str) -> int:
    """Returns the exit code of `verb` (train, evaluate or predict) with `arguments`."""
    main = {'train': train, 'evaluate': evaluate, 'predict': predict}[verb].main
    with pytest.MonkeyPatch.context() as patch:
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
