"""Tests of mmtl_jax.reporting."""
