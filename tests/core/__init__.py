"""Tests of mmtl_jax.core."""
