"""Obtains Debian's package of Tux Paint stamps: an installed copy, a .deb put there by hand, or apt."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

NAME = 'tuxpaint-stamps-default'
VERSION = '2022.06.04-1'
DEB = f'{NAME}_{VERSION}_all.deb'
DEB_SHA256 = '6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34'
# Of the unpacked stamps, see `tree_sha256`.
TREE_SHA256 = '00cced41a1f1ed3e9de2108a92b8931ade1ea2583f2ee9cfb5dd90684c1ee4bf'
STAMPS = pathlib.Path('usr/share/tuxpaint/stamps')
INSTALLED = pathlib.Path('/') / STAMPS
# The .deb and what is unpacked from it.
NEEDED_BYTES = 450_000_000
APT_SECONDS = 900


def obtain(download_dir: pathlib.Path, manual_dir: pathlib.Path) -> pathlib.Path:
    """Returns the folder with the stamps of exactly the version that this data set is defined on.

    An installed copy comes first, then one unpacked earlier, then a .deb in `manual_dir`, then apt. Whatever is
    unpacked lands in `download_dir` in one move, so that no half of it is ever found there.

    Args:
      download_dir: where to unpack.
      manual_dir: where a user may have put the .deb.

    Raises:
      ValueError: the package cannot be had; the sentence says why, and the three ways out.
    """
    if is_intact(INSTALLED):
        return INSTALLED
    unpacked = download_dir / f'{NAME}_{VERSION}'
    if is_intact(unpacked / STAMPS):
        return unpacked / STAMPS
    try:
        download_dir.mkdir(parents=True, exist_ok=True)
        _check_space(download_dir)
        # Next to its destination, so that the final move is a rename.
        with tempfile.TemporaryDirectory(prefix='.incomplete_', dir=download_dir) as scratch:
            deb = manual_dir / DEB
            if not deb.is_file():
                deb = _download(pathlib.Path(scratch))
            _check_deb(deb)
            content = pathlib.Path(scratch) / 'content'
            _run(['dpkg-deb', '-x', str(deb), str(content)])
            if not is_intact(content / STAMPS):
                raise _PackageError(f'{deb} unpacked to something else than the stamps of version {VERSION}')
            shutil.rmtree(unpacked, ignore_errors=True)
            _move(content, unpacked)
    except _PackageError as failure:
        raise ValueError(_sentence(str(failure), manual_dir)) from failure
    except OSError as error:
        raise ValueError(_sentence(f'{download_dir}: {error.strerror or error}', manual_dir)) from error
    return unpacked / STAMPS


class _PackageError(Exception):
    """Why the package cannot be had, as half a sentence."""


def _sentence(reason: str, manual_dir: pathlib.Path) -> str:
    other = ''
    if INSTALLED.is_dir():
        other = f' (the installed copy in {INSTALLED} is another version, or was changed)'
    return (
        f'cannot obtain the Tux Paint stamps: {reason.strip()}{other}; install the package '
        f'(apt-get install {NAME}={VERSION}), or put {DEB} into {manual_dir}, or run where apt reaches a '
        'Debian mirror with that version.'
    )


def is_intact(stamps: pathlib.Path) -> bool:
    """Returns whether the folder holds exactly the files of the expected version."""
    return stamps.is_dir() and tree_sha256(stamps) == TREE_SHA256


def tree_sha256(root: pathlib.Path) -> str:
    """Returns the sha256 of the sorted lines 'sha256 path' over the files below `root`."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob('*') if path.is_file()}
    lines = (f'{hashlib.sha256(path.read_bytes()).hexdigest()} {name}' for name, path in sorted(paths.items()))
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def _move(content: pathlib.Path, unpacked: pathlib.Path) -> None:
    try:
        content.rename(unpacked)
    except OSError:
        # Another process may have been faster.
        if not is_intact(unpacked / STAMPS):
            raise


def free_bytes(folder: pathlib.Path) -> int:
    """Returns the free space of the disk on which `folder` is, or will be."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_space(folder: pathlib.Path) -> None:
    free = free_bytes(folder)
    if free < NEEDED_BYTES:
        raise _PackageError(
            f'the disk of {folder} has {free / 1e6:.0f} MB left, {NEEDED_BYTES / 1e6:.0f} MB are needed'
        )


def _check_deb(deb: pathlib.Path) -> None:
    with deb.open('rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
    if found != DEB_SHA256:
        raise _PackageError(
            f'{deb} ({deb.stat().st_size} bytes) is truncated or another version: its sha256 is {found}, '
            f'expected {DEB_SHA256}'
        )


def _download(folder: pathlib.Path) -> pathlib.Path:
    """Returns the .deb that apt fetched into `folder`; needs no root."""
    download = ['download', f'{NAME}={VERSION}']
    try:
        _run(['apt-get', *download], cwd=folder)
    except _PackageError:
        # A fresh machine has no package lists yet, or old ones. Lists of our own need no root either.
        for path in ('state/lists/partial', 'cache/archives/partial'):
            (folder / path).mkdir(parents=True)
        own = [f'--option=Dir::State={folder / "state"}', f'--option=Dir::Cache={folder / "cache"}']
        messages = _run(['apt-get', *own, 'update'], cwd=folder)
        try:
            _run(['apt-get', *own, *download], cwd=folder)
        except _PackageError as error:
            # Without a network apt-get update only warns, and the package seems unknown.
            warnings = [line for line in messages.splitlines() if line.startswith('W: Failed to fetch')]
            raise _PackageError(f'{error} ({warnings[0][3:]})' if warnings else str(error)) from error
    debs = list(folder.glob('*.deb'))
    if len(debs) != 1:
        raise _PackageError(f'apt-get download left {len(debs)} .deb files, expected one')
    return debs[0]


def _run(command: list[str], cwd: pathlib.Path | None = None) -> str:
    """Runs a command quietly and returns what it says on stderr; its first error there is the failure's reason."""
    name = command[0]
    try:
        # One language, so that the reasons read the same everywhere.
        environment = {**os.environ, 'LC_ALL': 'C.UTF-8'}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=APT_SECONDS)
    except FileNotFoundError as error:
        raise _PackageError(f'there is no {name} on this machine') from error
    except subprocess.TimeoutExpired as error:
        raise _PackageError(f'{name} did not end within {APT_SECONDS} seconds') from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
        errors = [line for line in lines if line.startswith('E:')] or lines
        raise _PackageError(f'{name} says "{errors[0].removeprefix("E:").strip()}"')
    return done.stderr
