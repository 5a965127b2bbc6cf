"""Tests of mmtl_jax.metrics."""
