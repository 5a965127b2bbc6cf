"""Strict settings for every test: eight virtual devices, no silent rank promotion, one persistent compilation cache."""

import os
import pathlib
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')
# Tests leave nothing beside a user's own converted weights.
os.environ.setdefault('MMTL_JAX_CACHE', 'off')

import jax

CACHE = pathlib.Path(os.environ.get('MMTL_JAX_TEST_CACHE', pathlib.Path(tempfile.gettempdir()) / 'mmtl_jax_test_cache'))

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
