"""Low-rank adaptation: an encoder whose weights stay as they are, and a small trained difference to some of them."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.traverse_util import flatten_dict, unflatten_dict

from mmtl_jax.core.types import Array, Features, PyTree
from mmtl_jax.nn import CheckedModule

BASE, FACTORS = 'base', 'lora'
# What to freeze of an adapted encoder: all but the factors and the projection that is new on top of published weights.
FROZEN = rf'{BASE}/(?!projection)'
# These kernels [D, heads, channels] read one axis and write two; all others write the last.
READS_ONE_AXIS = re.compile(r'(?:query|key|value)/kernel$')


class LoRA(CheckedModule):
    """An encoder, some of whose kernels W are used as W + alpha / rank * A B (Hu et al. 2021, 2106.09685, section 4.1).

    A kernel is taken as a matrix `[inputs, outputs]`: that of a convolution has a row for each input channel and place
    of its window, those of attention join heads and channels. A is `[inputs, rank]` and B `[rank, outputs]`. B begins
    at 0, so that the first outputs are those of the encoder to the bit; A begins uniform with variance 1 / (3 inputs),
    as in the authors' code, where the paper has normal values.

    The parameters of the encoder stand below `base`, and the factors below `lora` in the places of their kernels.
    Nothing here keeps the base as it is: freeze `base`, or `FROZEN`, which leaves out a new projection.

    Attributes:
      encoder: any module `(inputs, *, train) -> Features`.
      rank: of the difference, at most the inputs and the outputs of each target.
      alpha: what the difference is multiplied by, over the rank.
      targets: regular expression, found anywhere in the paths of the kernels to adapt; the queries and values of
        attention by default, as in the paper.
    """

    encoder: nn.Module
    rank: int = 8
    alpha: float = 16.0
    targets: str = r'attention/(query|value)/kernel'

    @property
    def width(self) -> int | None:
        """The encoder's."""
        return self.encoder.width

    @nn.compact
    def __call__(self, *inputs: Any, train: bool, **options: Any) -> Features:
        """Returns the Features of the adapted encoder.

        Raises:
          ValueError: no kernel is a target, or the rank does not fit one.
        """
        base = self.encoder.clone(parent=self, name=BASE, _deep_clone=True)
        first = base(*inputs, train=train, **options) if self.is_initializing() else None
        factors = self.param(FACTORS, self._first_factors, base.variables['params'])
        if first is not None:
            return first
        pairs, above = flatten_dict(factors, sep='/'), len(base.path)

        def adapt(next_function: Callable[..., Any], args: tuple, options: dict, context: Any) -> Any:
            path = '/'.join((*context.module.path[above:], 'kernel'))
            if context.method_name != '__call__' or f'{path}/a' not in pairs:
                return next_function(*args, **options)
            a, b = pairs[f'{path}/a'], pairs[f'{path}/b']
            return self._call_adapted(next_function, args, options, context.module, a, b)

        with nn.intercept_methods(adapt):
            return base(*inputs, train=train, **options)

    @nn.nowrap
    def _call_adapted(
        self, next_function: Callable[..., Any], args: tuple, options: dict, module: nn.Module, a: Array, b: Array
    ) -> Any:
        """Returns what a layer of the base does with its kernel and the difference.

        x W + (x A) B of a dense layer has no gradient by a matrix as large as W. Other layers get the sum of both.
        """
        weights = module.variables['params']
        axes = _read_axes(module)
        if args and axes and math.prod(weights['kernel'].shape[:axes]) == len(a):
            # As matrices: XLA for CPUs is slow at contracting two axes at once, as the gradient would.
            x, a, b = promote_dtype(args[0].reshape(-1, len(a)), a, b, dtype=module.dtype)
            outputs = next_function(*args, **options)
            return outputs + (self.alpha / self.rank * ((x @ a) @ b)).reshape(outputs.shape)
        weights = {**weights, 'kernel': _sum(weights['kernel'], a, b, self.alpha / self.rank)}
        return module.clone(parent=None).apply({'params': weights}, *args, **options)

    @nn.nowrap
    def merge(self, params: Mapping[str, PyTree]) -> PyTree:
        """Returns the parameters with which `encoder` alone does what this module does with `params`."""
        return self._add(params[BASE], params[FACTORS], self.alpha / self.rank)

    @nn.nowrap
    def unmerge(self, merged: PyTree, factors: PyTree) -> dict[str, PyTree]:
        """Returns parameters of this module from what `merge` returned and the factors, `params['lora']`.

        The factors are those given. The base is the first one within rounding, about one unit in the last place of the
        larger of weight and difference; what must be had to the bit is to be kept.
        """
        return {BASE: self._add(merged, factors, -self.alpha / self.rank), FACTORS: factors}

    @nn.nowrap
    def _add(self, base: PyTree, factors: PyTree, scale: float) -> PyTree:
        """Returns the base with `scale` A B added to its targets."""
        weights, pairs = flatten_dict(base, sep='/'), flatten_dict(factors, sep='/')
        for path in {path.rpartition('/')[0] for path in pairs}:
            weights[path] = _sum(weights[path], pairs[f'{path}/a'], pairs[f'{path}/b'], scale)
        return unflatten_dict(weights, sep='/')

    @nn.nowrap
    def _first_factors(self, key: Array, base: PyTree) -> dict[str, PyTree]:
        """Returns `{'a', 'b'}` in the place of each target."""
        shapes = {path: leaf.shape for path, leaf in flatten_dict(base, sep='/').items()}
        kernels = {path: shape for path, shape in shapes.items() if path.split('/')[-1] == 'kernel'}
        try:
            targets = {
                path: _as_matrix(path, shape) for path, shape in kernels.items() if re.search(self.targets, path)
            }
        except re.error as error:
            raise ValueError(f'LoRA: targets {self.targets!r} is no regular expression: {error}.') from error
        if not targets:
            raise ValueError(f'LoRA: targets {self.targets!r} matches no kernel; there are {sorted(kernels)}.')
        uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
        factors = {}
        for index, (path, (inputs, outputs)) in enumerate(sorted(targets.items())):
            if self.rank > min(inputs, outputs):
                raise ValueError(
                    f'LoRA: {path!r} has {inputs} inputs and {outputs} outputs, so the rank must be from 1 to '
                    f'{min(inputs, outputs)}, got {self.rank}; change it, or leave that kernel out of the targets.'
                )
            factors[f'{path}/a'] = uniform(jax.random.fold_in(key, index), (inputs, self.rank))
            factors[f'{path}/b'] = jnp.zeros((self.rank, outputs))
        return unflatten_dict(factors, sep='/')


def _sum(kernel: Array, a: Array, b: Array, scale: float) -> Array:
    return kernel + scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST).reshape(kernel.shape)


def _read_axes(module: nn.Module) -> int:
    """Returns how many of the last axes of its input a dense layer multiplies; 0 for any other layer."""
    if isinstance(module, nn.Dense):
        return 1
    if isinstance(module, nn.DenseGeneral) and not module.batch_dims:
        axes = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
        return len(axes) if axes == tuple(range(-len(axes), 0)) else 0
    return 0


def _as_matrix(path: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a kernel."""
    inputs = 1 if READS_ONE_AXIS.search(path) else len(shape) - 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])
