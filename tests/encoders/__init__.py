"""Tests of mmtl_jax.encoders."""
