"""The C library's allocator: what it does with the memory that a step frees."""

import ctypes
import os

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The largest C int, and what nothing in a step reaches in one piece.
NEVER, ONE_GIBIBYTE = 2**31 - 1, 2**30
SETTINGS = ('MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES')


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next allocation, and returns whether it does.

    By default it gives every block of 32 MiB or more back to the system at once. XLA for CPUs takes the temporary
    memory of a program in one piece, so that each step would get new pages for it, and a page fault for each of them.
    Other C libraries, and an allocator that is set in the environment (`SETTINGS`), are left as they are.
    """
    if any(name in os.environ for name in SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; no such way to ask for it
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, ONE_GIBIBYTE)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
