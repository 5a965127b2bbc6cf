"""Tests of mmtl_jax.heads."""
