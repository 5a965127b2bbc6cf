"""The compiler: what XLA is told about the platform that it compiles for."""

import functools
import os

import jax

LIBRARY_CALLS = 'xla_cpu_experimental_ynn_fusion_type'
# What goes to YNNPACK by default, but for convolutions.
PRODUCTS_AND_SUMS = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns the options for `jax.stages.Lowered.compile`, empty where XLA's own choice is the best known.

    On CPUs, two-dimensional convolutions go to Eigen instead of YNNPACK, which is slower at them, and takes up to four
    times as long for the gradients of their weights (docs/training.md, What it costs). An option in `XLA_FLAGS` stays
    as it is, and so does an XLA that does not know this one.
    """
    if jax.default_backend() != 'cpu' or LIBRARY_CALLS in os.environ.get('XLA_FLAGS', ''):
        return {}
    options = {LIBRARY_CALLS: PRODUCTS_AND_SUMS}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:  # no such option, or no such value of it
        return {}
    return options
