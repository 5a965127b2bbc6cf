"""Tests of mmtl_jax.sharing."""
