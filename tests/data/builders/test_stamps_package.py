"""Obtaining the stamps package: each source, and a clear sentence where none of them works."""

import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

from mmtl_jax.data.builders import stamps_package

needs_dpkg = pytest.mark.skipif(shutil.which('dpkg-deb') is None, reason='builds a small .deb')

WAYS_OUT = (
    r'; install the package \(apt-get install tuxpaint-stamps-default=2022\.06\.04-1\), '
    r'or put tuxpaint-stamps-default_2022\.06\.04-1_all\.deb into .*manual, '
    r'or run where apt reaches a Debian mirror with that version\.$'
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine without the package: folders for downloads and manual files, and commands in `bin` alone."""
    for name in ('bin', 'manual', 'downloads'):
        (tmp_path / name).mkdir()
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setattr(stamps_package, 'INSTALLED', tmp_path / 'installed')
    return tmp_path


def command(place, name, script):
    """Makes a command of that name from shell lines, which still see the machine's own commands."""
    path = place / 'bin' / name
    path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n')
    path.chmod(0o755)


def write_stamps(folder: pathlib.Path) -> pathlib.Path:
    (folder / 'animals').mkdir(parents=True)
    (folder / 'animals' / 'cat.txt').write_text('A cat.')
    return folder


@pytest.fixture
def deb(place, monkeypatch):
    """A small .deb that passes for the real one, lying outside the manual folder."""
    content = place / 'content'
    stamps = write_stamps(content / stamps_package.STAMPS)
    (content / 'DEBIAN').mkdir()
    (content / 'DEBIAN' / 'control').write_text(
        'Package: tuxpaint-stamps-default\nVersion: 2022.06.04-1\nArchitecture: all\nMaintainer: a <a@b.c>\n'
        'Description: stamps\n'
    )
    path = place / stamps_package.DEB
    command(place, 'dpkg-deb', 'exec dpkg-deb "$@"')
    subprocess.run(['dpkg-deb', '--build', content, path], check=True, capture_output=True)
    monkeypatch.setattr(stamps_package, 'DEB_SHA256', hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(stamps))
    return path


def obtain(place):
    return stamps_package.obtain(place / 'downloads', place / 'manual')


def check_refused(place, reason):
    """Fails unless one sentence gives the reason and the ways out, and nothing is left behind."""
    with pytest.raises(ValueError, match=rf'^cannot obtain the Tux Paint stamps: {reason}{WAYS_OUT}'):
        obtain(place)
    assert list((place / 'downloads').iterdir()) == []


def test_an_installed_copy_needs_no_command(place, monkeypatch):
    installed = write_stamps(place / 'installed')
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', stamps_package.tree_sha256(installed))
    assert obtain(place) == installed


def test_the_tree_value_sees_names_and_bytes(tmp_path):
    stamps = write_stamps(tmp_path / 'stamps')
    before = stamps_package.tree_sha256(stamps)
    (stamps / 'animals' / 'cat.txt').write_text('A dog.')
    changed = stamps_package.tree_sha256(stamps)
    (stamps / 'animals' / 'cat.txt').rename(stamps / 'animals' / 'dog.txt')
    assert len({before, changed, stamps_package.tree_sha256(stamps)}) == 3


@needs_dpkg
def test_a_deb_in_the_manual_folder_is_unpacked_once(place, deb):
    shutil.move(deb, place / 'manual')
    stamps = obtain(place)
    assert (stamps / 'animals' / 'cat.txt').read_text() == 'A cat.'
    assert [path.name for path in (place / 'downloads').iterdir()] == ['tuxpaint-stamps-default_2022.06.04-1']
    (place / 'manual' / deb.name).unlink()
    assert obtain(place) == stamps


@needs_dpkg
def test_a_damaged_unpacked_copy_is_replaced(place, deb):
    shutil.move(deb, place / 'manual')
    file = obtain(place) / 'animals' / 'cat.txt'
    file.write_text('damaged')
    assert (obtain(place) / 'animals' / 'cat.txt').read_text() == 'A cat.'


@needs_dpkg
def test_apt_downloads_the_version_asked_for(place, deb):
    command(place, 'apt-get', f'[ "$1 $2" = "download tuxpaint-stamps-default=2022.06.04-1" ] && cp {deb} .')
    assert (obtain(place) / 'animals' / 'cat.txt').exists()
    assert len(list((place / 'downloads').iterdir())) == 1


@needs_dpkg
def test_apt_without_package_lists_gets_lists_of_its_own(place, deb):
    # Options come first once there are lists of our own: --option=Dir::State=... --option=Dir::Cache=... download ...
    command(
        place,
        'apt-get',
        f'case "$3" in update) touch updated;; download) [ -e updated ] && cp {deb} .;; '
        '*) echo "E: Unable to locate package" >&2; exit 100;; esac',
    )
    assert (obtain(place) / 'animals' / 'cat.txt').exists()


@needs_dpkg
def test_a_truncated_deb(place, deb):
    (place / 'manual' / deb.name).write_bytes(deb.read_bytes()[:100])
    reason = (
        r'.*manual/tuxpaint-stamps-default_2022\.06\.04-1_all\.deb \(100 bytes\) is truncated or another version: '
        r'its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}'
    )
    check_refused(place, reason)


@needs_dpkg
def test_a_deb_with_other_content(place, deb, monkeypatch):
    shutil.move(deb, place / 'manual')
    monkeypatch.setattr(stamps_package, 'TREE_SHA256', 'another')
    check_refused(place, r'.*\.deb unpacked to something else than the stamps of version 2022\.06\.04-1')


def test_no_apt(place):
    check_refused(place, 'there is no apt-get on this machine')


@needs_dpkg
def test_no_dpkg(place, deb):
    shutil.move(deb, place / 'manual')
    (place / 'bin' / 'dpkg-deb').unlink()
    check_refused(place, 'there is no dpkg-deb on this machine')


def test_no_network(place):
    command(
        place,
        'apt-get',
        'echo "W: Failed to fetch the list: could not resolve the host" >&2; [ "$3" = update ] && exit 0; '
        'echo "E: Unable to locate package tuxpaint-stamps-default" >&2; exit 100',
    )
    check_refused(
        place,
        r'apt-get says "Unable to locate package tuxpaint-stamps-default" '
        r'\(Failed to fetch the list: could not resolve the host\)',
    )


def test_a_mirror_with_another_version(place):
    command(place, 'apt-get', 'echo "E: Version \'2022.06.04-1\' was not found" >&2; [ "$3" = update ]')
    check_refused(place, r'apt-get says "Version \'2022\.06\.04-1\' was not found"')


def test_apt_that_hangs(place, monkeypatch):
    command(place, 'apt-get', 'exec sleep 20')
    monkeypatch.setattr(stamps_package, 'APT_SECONDS', 0.2)
    check_refused(place, r'apt-get did not end within 0\.2 seconds')


def test_apt_that_delivers_nothing(place):
    command(place, 'apt-get', 'exit 0')
    check_refused(place, r'apt-get download left 0 \.deb files, expected one')


def test_a_full_disk_is_seen_before(place, monkeypatch):
    monkeypatch.setattr(stamps_package, 'free_bytes', lambda folder: 10_000_000)
    check_refused(place, r'the disk of .*downloads has 10 MB left, 450 MB are needed')


@needs_dpkg
def test_a_disk_that_fills_up(place, deb):
    shutil.move(deb, place / 'manual')
    command(
        place,
        'dpkg-deb',
        'mkdir "$3"; echo half > "$3/file"; echo "dpkg-deb: error: cannot write: No space left on device" >&2; exit 2',
    )
    check_refused(place, r'dpkg-deb says "dpkg-deb: error: cannot write: No space left on device"')


def test_a_download_folder_that_cannot_be_made(place):
    (place / 'file').write_text('in the way')
    with pytest.raises(ValueError, match=rf'^cannot obtain the Tux Paint stamps: .*file/here: .*{WAYS_OUT}'):
        stamps_package.obtain(place / 'file' / 'here', place / 'manual')


def test_a_changed_installed_copy_is_passed_over(place):
    write_stamps(place / 'installed')
    check_refused(
        place,
        r'there is no apt-get on this machine '
        r'\(the installed copy in .*installed is another version, or was changed\)',
    )


def test_free_bytes_of_a_folder_to_come(tmp_path):
    assert stamps_package.free_bytes(tmp_path / 'not' / 'yet') > 0
    assert os.listdir(tmp_path) == []
