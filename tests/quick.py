"""What keeps tests of modules quick: most of their time is compiling functions that run once or twice."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmtl_jax.core.types import PyTree

# Half the compile time; the arithmetic is the same.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def parameters(module: nn.Module, *inputs: Any, seed: int = 0, noise: float = 0.0, **options: Any) -> PyTree:
    """Returns random variables for `module`, without compiling its initialisers.

    Scales and variances are 1 and other vectors 0, as initialisers have them; kernels keep unit variance. Kernels that
    start at zero do not stay there, so that a test of gradients or masks sees what lies behind them. `noise` is added
    to all of them, so that a forgotten bias or scale shows.
    """
    generator = np.random.default_rng(seed)

    def draw(path: tuple, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(shape.shape) < 2:
            values = np.full(shape.shape, path[-1].key in ('scale', 'var'), shape.dtype)
        else:
            values = generator.normal(size=shape.shape) / math.sqrt(math.prod(shape.shape[:-1]))
        if noise:
            values = values + generator.normal(scale=noise, size=shape.shape)
        return values.astype(shape.dtype)

    shapes = jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs, **options), *inputs)
    return jax.tree_util.tree_map_with_path(draw, shapes)
