"""mmtl_jax: multi-modal, multi-task learning in JAX."""

__version__ = '0.1.0'
