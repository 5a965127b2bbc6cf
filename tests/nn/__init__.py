"""Tests of mmtl_jax.nn."""
