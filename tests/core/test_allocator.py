"""The memory that a step frees is there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from mmtl_jax.core.allocator import SETTINGS

# Two blocks one after the other; prints what the setting returned and the page faults that the second one took.
PROGRAM = """
import ctypes, resource
from mmtl_jax.core.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
kept = keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    libc.free(block)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, faults)
"""
SIZE = 2**27


def second_block(**settings):
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | settings
    program = PROGRAM.replace('SIZE', str(SIZE))
    done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept == 'True', int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc has the setting')
def test_freed_memory_is_kept_unless_the_environment_says_otherwise():
    kept, faults = second_block()
    assert kept
    # The block's pages are in the process already; what else Python does takes a few.
    assert faults < 100
    left, new = second_block(MALLOC_MMAP_THRESHOLD_='131072')
    assert not left
    # A page for each 4 KiB, or of 2 MiB where the system has those.
    assert new >= SIZE / 2**21
