"""Tests of mmtl_jax.pretrained."""
