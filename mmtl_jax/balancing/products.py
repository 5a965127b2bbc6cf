"""Operations of a network that multiply by a weight array: their gradients for many tasks from one pair of factors.

A dense layer and a convolution are products of matrices, inputs A `[R, m]` by weights `[m, n]`. With the gradients D_t
`[R, n]` of the tasks' losses by the result, those by the weights are `A^T D_t`.
"""

import abc
import collections
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend import core

from mmtl_jax.balancing.aggregate import combine
from mmtl_jax.balancing.base import mask_inactive
from mmtl_jax.balancing.gramian import products, sums_are_faster
from mmtl_jax.core.types import Array

HIGHEST = jax.lax.Precision.HIGHEST
# Multiplications that take as long as to write a number to memory and to read it for the inner products and the sum.
TRAFFIC = 60


@struct.dataclass
class Factors:
    """T gradients of one weight array, as their factors: that of task t is `inputs^T cotangents[t]`.

    Attributes:
      inputs: `[R, m]`, what the weights multiply: R rows, of all examples and tokens or positions.
      cotangents: `[T, R, n]`, the gradients of the tasks' losses by the R products.
      shape: of the weights with the contracted axes first; m entries, then n.
      order: the axes of `shape` in the order in which the weights have them.
    """

    inputs: Array
    cotangents: Array
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    order: tuple[int, ...] = struct.field(pytree_node=False)

    def gramian(self) -> Array:
        """Returns the inner products `[T, T]`: `<A^T D_i, A^T D_j> = <D_i, (A A^T) D_j>`."""
        between = jnp.matmul(self.inputs, self.inputs.T, precision=HIGHEST)
        if sums_are_faster(len(self.cotangents)):
            spread = [jnp.matmul(between, cotangent, precision=HIGHEST) for cotangent in self.cotangents]
        else:
            spread = jnp.einsum('rs,tsn->trn', between, self.cotangents, precision=HIGHEST)
        return products(self.cotangents, spread)

    def combine(self, weights: Array) -> Array:
        """Returns the sum of weight times gradient, for `weights [T]`, by a single product."""
        cotangent = combine(weights, self.cotangents)
        return self._shaped(self.inputs.T @ cotangent)

    def mask(self, active: Array) -> 'Factors':
        """Returns the same with gradients of 0 for the tasks that are not `active [T]`, whatever theirs were."""
        return self.replace(cotangents=mask_inactive(self.cotangents, active))

    def _shaped(self, gradient: Array) -> Array:
        return gradient.reshape(self.shape).transpose(self.order)


class Product(abc.ABC):
    """An equation of a jaxpr that multiplies its first operand by its second, a weight array.

    Attributes:
      equation: the equation.
      rows: R.
      m: how many inputs a row has.
      n: how many results a row has.
    """

    def __init__(self, equation: core.JaxprEqn, contracted: Sequence[int], others: Sequence[int]):
        """Takes the axes of the weights: those summed over, in the order of a row's m inputs, and the others."""
        axes, weights = [*contracted, *others], equation.invars[1].aval
        self.equation = equation
        self.m = math.prod(weights.shape[axis] for axis in contracted)
        self.n = weights.size // self.m
        self.rows = equation.outvars[0].aval.size // self.n
        self._shape = tuple(weights.shape[axis] for axis in axes)
        self._order = tuple(axes.index(axis) for axis in range(len(axes)))

    @abc.abstractmethod
    def matrix(self, operand: Array) -> Array:
        """Returns what the weights multiply, `[R, m]`, for the first operand of the equation."""

    @abc.abstractmethod
    def columns(self, cotangents: Array) -> Array:
        """Returns `[T, R, n]` for the cotangents `[T, ...]` of the equation's result."""

    def factors(self, matrix: Array, cotangents: Array) -> Factors:
        """Returns T gradients of the weights, for `matrix(operand)` and the cotangents `[T, ...]` of the result."""
        return Factors(matrix, self.columns(cotangents), self._shape, self._order)

    def lighter_as_factors(self, num_tasks: int) -> bool:
        """Returns whether that is less work for T gradients, their inner products and their sum."""
        rows, m, n = self.rows, self.m, self.n
        written = num_tasks * rows * m * n + num_tasks**2 * m * n + num_tasks * m * n
        by_factors = rows**2 * m + num_tasks * rows**2 * n + num_tasks**2 * rows * n + rows * m * n
        return by_factors + TRAFFIC * num_tasks * rows * n < written + TRAFFIC * num_tasks * m * n


class Dense(Product):
    """A `dot_general` without batched axes."""

    def __init__(self, equation: core.JaxprEqn):
        """Takes the equation."""
        (self._contracted, of_weights), _ = equation.params['dimension_numbers']
        others = [axis for axis in range(equation.invars[1].aval.ndim) if axis not in of_weights]
        super().__init__(equation, of_weights, others)

    @staticmethod
    def fits(equation: core.JaxprEqn) -> bool:
        """Returns whether the equation is such a product."""
        return equation.primitive.name == 'dot_general' and equation.params['dimension_numbers'][1] == ((), ())

    def matrix(self, operand: Array) -> Array:
        """Returns `[R, m]`."""
        rows = [axis for axis in range(operand.ndim) if axis not in self._contracted]
        return operand.transpose([*rows, *self._contracted]).reshape(self.rows, self.m)

    def columns(self, cotangents: Array) -> Array:
        """Returns `[T, R, n]`."""
        return cotangents.reshape(len(cotangents), self.rows, self.n)


class Convolution(Product):
    """A convolution over all channels, in any number of dimensions: rows are the patches that the window meets."""

    def __init__(self, equation: core.JaxprEqn):
        """Takes the equation."""
        self._axes = equation.params['dimension_numbers']
        outputs, inputs, *window = self._axes.rhs_spec
        super().__init__(equation, [*window, inputs], [outputs])

    @staticmethod
    def fits(equation: core.JaxprEqn) -> bool:
        """Returns whether the equation is such a convolution."""
        if equation.primitive.name != 'conv_general_dilated':
            return False
        parameters = equation.params
        groups = parameters['feature_group_count'] * parameters['batch_group_count']
        return groups == 1 and all(step == 1 for step in parameters['lhs_dilation'])

    def matrix(self, operand: Array) -> Array:
        """Returns the patches, `[R, m]`."""
        parameters = self.equation.params
        batch, channels, *spatial = self._axes.lhs_spec
        x = operand.transpose(batch, *spatial, channels)
        none = (0, 0, 0)
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [none, *((*both, 0) for both in parameters['padding']), none])
        result = self.equation.outvars[0].aval.shape
        sizes = [result[axis] for axis in self._axes.out_spec[2:]]
        window = [self.equation.invars[1].aval.shape[axis] for axis in self._axes.rhs_spec[2:]]
        strides, dilation = parameters['window_strides'], parameters['rhs_dilation']
        patches = []
        for offset in itertools.product(*map(range, window)):
            start = [at * step for at, step in zip(offset, dilation, strict=True)]
            stop = [at + (size - 1) * step + 1 for at, size, step in zip(start, sizes, strides, strict=True)]
            patches.append(jax.lax.slice(x, (0, *start, 0), (len(x), *stop, x.shape[-1]), (1, *strides, 1)))
        return jnp.stack(patches, axis=-2).reshape(self.rows, self.m)

    def columns(self, cotangents: Array) -> Array:
        """Returns `[T, R, n]`."""
        batch, channels, *spatial = (1 + axis for axis in self._axes.out_spec)
        return cotangents.transpose(0, batch, *spatial, channels).reshape(len(cotangents), self.rows, self.n)


def find_products(jaxpr: core.Jaxpr) -> dict[int, Product]:
    """Returns parameter -> the product in which it is the weights, of the parameters that are used nowhere else."""
    used = [*(variable for equation in jaxpr.eqns for variable in equation.invars), *jaxpr.outvars]
    uses = collections.Counter(variable for variable in used if isinstance(variable, core.Var))
    position = {variable: index for index, variable in enumerate(jaxpr.invars)}
    found = {}
    for equation, kind in itertools.product(jaxpr.eqns, (Dense, Convolution)):
        if kind.fits(equation):
            weights = equation.invars[1]
            if isinstance(weights, core.Var) and weights in position and uses[weights] == 1:
                found[position[weights]] = kind(equation)
    return found
