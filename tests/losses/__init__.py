"""Tests of mmtl_jax.losses."""
