"""The run directory: what a workdir holds, and the check that a second call belongs to it."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

from mmtl_jax.core.files import plain, read_json, write_json_atomic

PACKAGES = ('mmtl_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')
METRICS = 'metrics.jsonl'
MAY_GROW = 'training/num_steps'


def check_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Checks, without writing, that `workdir` is free or holds the run of this config.

    A run that stopped before its first step, because something in its config did not fit, may be given another one.

    Raises:
      ValueError: the directory holds a run of another config, or something else; the sentence says what differs.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f'--workdir={workdir} is a file; give a directory.')
    path = workdir / 'config.json'
    if path.exists() and (workdir / METRICS).exists():
        saved = read_json(path)
        difference = config_difference(saved, plain(config))
        if difference:
            raise ValueError(
                f'{workdir} holds a run of another config: {"; ".join(difference)}. Choose a new --workdir or the '
                'config of that run (training.num_steps may grow).'
            )
    elif not path.exists() and workdir.exists() and any(workdir.iterdir()):
        raise ValueError(f'{workdir} is not empty and holds no run (no config.json); choose an empty --workdir.')


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes `workdir` the directory of this run: writes its config and environment."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_json_atomic(workdir / 'config.json', config)
    write_json_atomic(workdir / 'environment.json', environment())


def config_difference(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns one phrase for each value in which two configs differ; a larger number of steps is no difference."""
    old, new = flatten_config(saved), flatten_config(given)
    phrases = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key, '(absent)'), new.get(key, '(absent)')
        grows = key == MAY_GROW and isinstance(before, int) and isinstance(now, int) and now >= before
        if before != now and not grows:
            phrases.append(f'{key} was {before!r} and is {now!r}')
    return phrases


def flatten_config(config: Any, prefix: str = '') -> dict[str, Any]:
    """Returns the leaves of nested mappings by their path `a/b/c`."""
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    return {
        path: leaf
        for key, value in config.items()
        for path, leaf in flatten_config(value, f'{prefix}/{key}' if prefix else str(key)).items()
    }


def environment() -> dict[str, Any]:
    """Returns the versions, the devices and the git commit of this process."""
    return {
        'python': platform.python_version(),
        'platform': platform.platform(),
        'packages': {name: importlib.metadata.version(name) for name in PACKAGES},
        'processor': processor(),
        'devices': [str(device) for device in jax.devices()],
        'device_kind': jax.devices()[0].device_kind,
        'process_count': jax.process_count(),
        'git_commit': git_commit(),
    }


def processor() -> str:
    """Returns the host's processor and its cores, such as '8 cores of AMD EPYC', or '2 of 8 cores of AMD EPYC'.

    The latter is said where this process may use some of them only.
    """
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        model = next(line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):  # not Linux, or a processor that Linux does not name
        model = platform.processor() or platform.machine()
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else cores
    return f'{cores if usable == cores else f"{usable} of {cores}"} cores of {model}'


def git_commit() -> str | None:
    """Returns the commit of the source tree, with `-dirty` if it was changed, or None outside a checkout."""
    here = pathlib.Path(__file__).parent
    command = ['git', '-C', str(here), 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
