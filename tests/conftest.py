"""Strict settings for every test: eight virtual devices, no silent rank promotion, one persistent compilation cache."""

import gc
import os
import pathlib
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')
# Tests leave nothing beside a user's own converted weights.
os.environ.setdefault('MMTL_JAX_CACHE', 'off')

import jax
import pytest

CACHE = pathlib.Path(os.environ.get('MMTL_JAX_TEST_CACHE', pathlib.Path(tempfile.gettempdir()) / 'mmtl_jax_test_cache'))

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)

# Linux lets a process map 65,530 regions of memory, and each compiled program takes some; beyond, it crashes. Far below
# that, the programs of one process take gigabytes.
MOST_REGIONS = 5_000
REGIONS = pathlib.Path('/proc/self/maps')


@pytest.fixture(scope='module', autouse=True)
def forget_compiled_programs():
    """Lets go of what was compiled before the process has mapped more memory than it may."""
    yield
    if REGIONS.exists() and REGIONS.read_bytes().count(b'\n') > MOST_REGIONS:
        jax.clear_caches()
        gc.collect()
