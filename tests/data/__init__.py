"""Tests of mmtl_jax.data."""
