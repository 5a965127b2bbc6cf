"""Tests of mmtl_jax.fusion."""
