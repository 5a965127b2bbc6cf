"""Tests of mmtl_jax, laid out as the package is."""
