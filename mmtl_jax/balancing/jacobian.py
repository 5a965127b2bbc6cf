"""The Jacobian of the task losses: one forward pass, then one backward pass per task, through the shared part alone.

What a balancer asks of a Jacobian is its Gramian and one weighted sum of its rows. Where weights meet few rows of
activations, both follow from the factors of their gradients, and the gradients themselves are never written down.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.extend import core

from mmtl_jax.balancing.aggregate import combine, sum_rows
from mmtl_jax.balancing.base import Rows, mask_inactive
from mmtl_jax.balancing.gramian import inner_products, sums_are_faster
from mmtl_jax.balancing.products import Factors, find_products
from mmtl_jax.core.types import Array, PyTree


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

    def combine(self, weights: Array | Rows, active: Array) -> PyTree:
        """Returns the direction that a balancer's weights `[T]`, or its `Rows`, stand for.

        The sum of weight times gradient is over the tasks that are `active [T]`; the gradients of others may hold NaN.
        """
        if isinstance(weights, Rows):
            return sum_rows(weights)

        def total(leaves: Sequence[Array | Factors]) -> list[Array]:
            return [leaf.combine(weights) if isinstance(leaf, Factors) else combine(weights, leaf) for leaf in leaves]

        def clean_total(leaves: Sequence[Array | Factors]) -> list[Array]:
            return total([_mask(leaf, active) for leaf in leaves])

        # Zero times NaN is NaN, but to clean what is clean already costs products a pass over the Jacobian.
        if sums_are_faster(len(active)):
            return self.structure.unflatten(clean_total(self.leaves))
        return self.structure.unflatten(jax.lax.cond(jnp.all(active), total, clean_total, self.leaves))

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
      factored: keep gradients of weights as `Factors` where that is less work than to write them down.
      chunk_size: backward passes that are vectorised together, by `jax.vmap`; the chunks run one after the other, so
        that a smaller number takes less memory. None: `default_chunk_size`.
    """
    leaves, structure = jax.tree.flatten(params)
    jaxpr, result = jax.make_jaxpr(function, return_shape=True)(params)
    result_structure, num_outputs = jax.tree.structure(result), len(jax.tree.leaves(result[0]))
    products = find_products(jaxpr.jaxpr) if factored else {}
    products = {at: product for at, product in products.items() if product.lighter_as_factors(num_tasks)}
    taps = {at: jnp.zeros_like(product.equation.outvars[0].aval) for at, product in products.items()}
    others = {position: leaf for position, leaf in enumerate(leaves) if position not in products}

    def forward(taps: dict[int, Array], others: dict[int, Array]) -> tuple[list[Array], tuple[list[Array], dict]]:
        arguments = [others.get(position, leaf) for position, leaf in enumerate(leaves)]
        by_equation = {id(product.equation): taps[at] for at, product in products.items()}
        results, inputs = _evaluate(jaxpr, arguments, by_equation)
        inputs = {at: inputs[id(product.equation)] for at, product in products.items()}
        return results[:num_outputs], (results[num_outputs:], inputs)

    outputs, back, (aux, inputs) = jax.vjp(forward, taps, others, has_aux=True)
    outputs, aux = result_structure.unflatten([*outputs, *aux])
    size = default_chunk_size(num_tasks) if chunk_size is None else min(chunk_size, num_tasks)

    def pull(cotangents: PyTree) -> Gradients:
        by_tap, by_leaf = _in_chunks(back, jax.tree.leaves(cotangents), num_tasks, size)
        for at, product in products.items():
            by_leaf[at] = product.factors(product.matrix(inputs[at]), by_tap[at])
        return Gradients(tuple(by_leaf[at] for at in range(len(leaves))), structure)

    return outputs, aux, pull


def default_chunk_size(num_tasks: int) -> int:
    """Returns how many backward passes run at once: on a CPU one, elsewhere all of them."""
    return 1 if jax.default_backend() == 'cpu' else num_tasks


def _mask(leaf: Array | Factors, active: Array) -> Array | Factors:
    return leaf.mask(active) if isinstance(leaf, Factors) else mask_inactive(leaf, active)


def _in_chunks(back: Callable[[list[Array]], Any], cotangents: list[Array], num_tasks: int, size: int) -> Any:
    """Returns what `back` gives for the cotangents `[T, ...]`, so many of them at a time, in one piece."""
    parts, done = [], cotangents[0][:0]
    for start in range(0, num_tasks, size):
        chunk = [cotangent[start : start + size] for cotangent in cotangents]
        if size < num_tasks:
            # Without the wait all chunks may be alive at once, and the memory is that of none.
            chunk, done = jax.lax.optimization_barrier((chunk, done))
        part = _vectorised(back, chunk)
        done = jax.tree.leaves(part)[0]
        parts.append(part)
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _vectorised(back: Callable[[list[Array]], Any], cotangents: list[Array]) -> Any:
    """Returns what `back` gives for each of the cotangents, stacked; one alone is left as it is."""
    if len(cotangents[0]) > 1:
        return jax.vmap(back)(cotangents)
    return jax.tree.map(lambda leaf: leaf[None], back([cotangent[0] for cotangent in cotangents]))


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
