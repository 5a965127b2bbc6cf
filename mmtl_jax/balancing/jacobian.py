"""The Jacobian of the task losses: one forward pass, then one backward pass per task, through the shared part alone.

What a balancer asks of a Jacobian is its Gramian and one weighted sum of its rows. Where a weight matrix meets few rows
of activations, both follow from the factors of its gradients, and the gradients themselves are never written down.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend import core

from mmtl_jax.balancing.aggregate import combine, inner_products
from mmtl_jax.balancing.base import mask_inactive
from mmtl_jax.core.types import Array, PyTree

HIGHEST = jax.lax.Precision.HIGHEST


@struct.dataclass
class Factors:
    """T gradients of one weight array, as their factors: that of task t is `inputs^T cotangents[t]`.

    Attributes:
      inputs: `[R, m]`, what the weights multiply: R rows, of all examples and tokens.
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
        spread = jnp.einsum('rs,tsn->trn', between, self.cotangents, precision=HIGHEST)
        # As matrices: XLA for CPUs is ten times slower at contracting two axes at once.
        num_tasks = len(self.cotangents)
        rows, spread = self.cotangents.reshape(num_tasks, -1), spread.reshape(num_tasks, -1)
        return jnp.matmul(rows, spread.T, precision=HIGHEST)

    def combine(self, weights: Array) -> Array:
        """Returns the sum of weight times gradient, for `weights [T]`, by a single product."""
        cotangent = jnp.tensordot(weights.astype(self.cotangents.dtype), self.cotangents, axes=1, precision=HIGHEST)
        return self._shaped(self.inputs.T @ cotangent)

    def mask(self, active: Array) -> 'Factors':
        """Returns the same with gradients of 0 for the tasks that are not `active [T]`, whatever theirs were."""
        return self.replace(cotangents=mask_inactive(self.cotangents, active))

    def _shaped(self, gradient: Array) -> Array:
        return gradient.reshape(self.shape).transpose(self.order)


@struct.dataclass
class Gradients:
    """T gradients of one tree of parameters.

    Attributes:
      leaves: per parameter an array `[T, ...]` or `Factors`.
      structure: of the tree.
    """

    leaves: tuple[Array | Factors, ...]
    structure: Any = struct.field(pytree_node=False)

    def gramian(self) -> Array:
        """Returns the inner products `[T, T]`, summed leaf by leaf; at least float32."""
        return sum(
            leaf.gramian() if isinstance(leaf, Factors) else inner_products(leaf, leading=1) for leaf in self.leaves
        )

    def combine(self, weights: Array, active: Array) -> PyTree:
        """Returns the sum of weight times gradient over the tasks that are `active [T]`; others may hold NaN."""

        def total(leaves: Sequence[Array | Factors]) -> list[Array]:
            return [leaf.combine(weights) if isinstance(leaf, Factors) else combine(weights, leaf) for leaf in leaves]

        # Zero times NaN is NaN, but to clean what is clean already would cost a pass over the Jacobian.
        direction = jax.lax.cond(
            jnp.all(active), total, lambda leaves: total([_mask(leaf, active) for leaf in leaves]), self.leaves
        )
        return self.structure.unflatten(direction)

    def rows(self, active: Array) -> PyTree:
        """Returns the Jacobian, a tree of arrays `[T, ...]`, with rows of 0 for tasks that are not `active [T]`.

        Raises:
          TypeError: some gradients are kept as factors.
        """
        if any(isinstance(leaf, Factors) for leaf in self.leaves):
            raise TypeError('gradients kept as factors have no rows; call pullback with factored=False.')
        return self.structure.unflatten([_mask(leaf, active) for leaf in self.leaves])


def pullback(
    function: Callable[[PyTree], tuple[PyTree, PyTree]],
    params: PyTree,
    *,
    num_tasks: int,
    factored: bool = True,
    chunk_size: int | None = None,
) -> tuple[PyTree, PyTree, Callable[[PyTree], Gradients]]:
    """Returns `(outputs, aux, pull)`, with `pull` from T cotangents of the outputs to T gradients of the parameters.

    Like `jax.vjp`, after one evaluation of the function, but for many cotangents at once.

    Args:
      function: parameters -> (outputs, aux), trees of arrays; only outputs are differentiated, all of them floats.
      params: tree of float arrays.
      num_tasks: T, the leading axis of every leaf of the cotangents.
      factored: keep gradients of weight matrices as `Factors` where that is less work than to write them down.
      chunk_size: backward passes that are vectorised together, by `jax.vmap`; the chunks run one after the other, so
        that a smaller number takes less memory. None: `default_chunk_size`.
    """
    leaves, structure = jax.tree.flatten(params)
    jaxpr, result = jax.make_jaxpr(function, return_shape=True)(params)
    result_structure, num_outputs = jax.tree.structure(result), len(jax.tree.leaves(result[0]))
    products = _weight_products(jaxpr.jaxpr, num_tasks) if factored else {}
    taps = {position: jnp.zeros_like(equation.outvars[0].aval) for position, equation in products.items()}
    others = {position: leaf for position, leaf in enumerate(leaves) if position not in products}

    def forward(taps: dict[int, Array], others: dict[int, Array]) -> tuple[list[Array], tuple[list[Array], dict]]:
        arguments = [others.get(position, leaf) for position, leaf in enumerate(leaves)]
        by_equation = {id(equation): taps[position] for position, equation in products.items()}
        results, inputs = _evaluate(jaxpr, arguments, by_equation)
        inputs = {position: inputs[id(equation)] for position, equation in products.items()}
        return results[:num_outputs], (results[num_outputs:], inputs)

    outputs, back, (aux, inputs) = jax.vjp(forward, taps, others, has_aux=True)
    outputs, aux = result_structure.unflatten([*outputs, *aux])
    size = default_chunk_size(num_tasks) if chunk_size is None else min(chunk_size, num_tasks)

    def pull(cotangents: PyTree) -> Gradients:
        by_tap, by_leaf = _in_chunks(back, jax.tree.leaves(cotangents), num_tasks, size)
        for position, equation in products.items():
            by_leaf[position] = _factors(equation, inputs[position], by_tap[position])
        return Gradients(tuple(by_leaf[position] for position in range(len(leaves))), structure)

    return outputs, aux, pull


def default_chunk_size(num_tasks: int) -> int:
    """Returns how many backward passes run at once: on a CPU one, elsewhere all of them."""
    return 1 if jax.default_backend() == 'cpu' else num_tasks


def _mask(leaf: Array | Factors, active: Array) -> Array | Factors:
    return leaf.mask(active) if isinstance(leaf, Factors) else mask_inactive(leaf, active)


def _in_chunks(back: Callable[..., Any], cotangents: list[Array], num_tasks: int, size: int) -> Any:
    """Returns what `back` gives for each of the cotangents `[T, ...]`, stacked."""
    parts, done = [], cotangents[0][:0]
    for start in range(0, num_tasks, size):
        chunk = [cotangent[start : start + size] for cotangent in cotangents]
        if size < num_tasks:
            # Without the wait all chunks may be alive at once, and the memory is that of none.
            chunk, done = jax.lax.optimization_barrier((chunk, done))
        if len(chunk[0]) == 1:
            part = jax.tree.map(lambda leaf: leaf[None], back([cotangent[0] for cotangent in chunk]))
        else:
            part = jax.vmap(back)(chunk)
        done = jax.tree.leaves(part)[0]
        parts.append(part)
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _weight_products(jaxpr: core.Jaxpr, num_tasks: int) -> dict[int, core.JaxprEqn]:
    """Returns parameter -> the equation in which it multiplies.

    Of the parameters that are used nowhere else, and whose gradients are the lighter as factors.
    """
    used = [*(variable for equation in jaxpr.eqns for variable in equation.invars), *jaxpr.outvars]
    uses = collections.Counter(variable for variable in used if isinstance(variable, core.Var))
    position = {variable: index for index, variable in enumerate(jaxpr.invars)}
    found = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name != 'dot_general':
            continue
        inputs, weights = equation.invars
        (contracted, _), batched = equation.params['dimension_numbers']
        if not isinstance(weights, core.Var) or weights not in position or uses[weights] != 1 or batched != ((), ()):
            continue
        m = math.prod(inputs.aval.shape[axis] for axis in contracted)
        if _factors_are_lighter(inputs.aval.size // m, m, weights.aval.size // m, num_tasks):
            found[position[weights]] = equation
    return found


def _factors_are_lighter(rows: int, m: int, n: int, num_tasks: int) -> bool:
    """Returns whether T gradients `[m, n]` and their products cost more than the products by factors."""
    written = num_tasks * rows * m * n + num_tasks**2 * m * n
    by_factors = rows**2 * m + num_tasks * rows**2 * n + num_tasks**2 * rows * n
    return by_factors < written


def _factors(equation: core.JaxprEqn, inputs: Array, cotangents: Array) -> Factors:
    """Returns the gradients of the second operand of a `dot_general`, from its first and `[T, ...]` of its result."""
    (of_inputs, of_weights), _ = equation.params['dimension_numbers']
    weights = equation.invars[1].aval.shape
    axes = [*of_weights, *(axis for axis in range(len(weights)) if axis not in of_weights)]
    m = math.prod(weights[axis] for axis in of_weights)
    rows = inputs.transpose([axis for axis in range(inputs.ndim) if axis not in of_inputs] + list(of_inputs))
    return Factors(
        inputs=rows.reshape(-1, m),
        cotangents=cotangents.reshape(len(cotangents), inputs.size // m, -1),
        shape=tuple(weights[axis] for axis in axes),
        order=tuple(axes.index(axis) for axis in range(len(axes))),
    )


def _evaluate(
    jaxpr: core.ClosedJaxpr, arguments: Sequence[Array], taps: dict[int, Array]
) -> tuple[list[Array], dict[int, Array]]:
    """Evaluates a jaxpr, adding to the results of some equations.

    Args:
      jaxpr: what to evaluate.
      arguments: its inputs.
      taps: id of an equation -> zeros, whose gradient is that by the result of the equation.

    Returns:
      results: its outputs.
      inputs: id of an equation with a tap -> its first input.
    """
    values = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    values.update(zip(jaxpr.jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    inputs = {}
    for equation in jaxpr.jaxpr.eqns:
        operands = [read(variable) for variable in equation.invars]
        results = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
        if id(equation) in taps:
            inputs[id(equation)], results = operands[0], results + taps[id(equation)]
        values.update(zip(equation.outvars, results if equation.primitive.multiple_results else [results], strict=True))
    return [read(variable) for variable in jaxpr.jaxpr.outvars], inputs
