"""Tests of mmtl_jax.balancing."""
