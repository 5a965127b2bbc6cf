"""The objective: a batch becomes the vector of task losses."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmtl_jax.core.tree import all_finite
from mmtl_jax.core.types import Array, Batch, Features, PyTree
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.tasks import Task


@struct.dataclass
class Measured:
    """What one forward pass tells beside the losses.

    Attributes:
      counts: `[T]` float, rows that are labelled and real, per task.
      metrics: task -> metric -> (sum, count).
      variables: the model's non-parameter collections after the pass.
    """

    counts: Array
    metrics: dict[str, dict[str, tuple[Array, Array]]]
    variables: PyTree


def row_weights(batch: Batch, task: str) -> Array:
    """Returns `[B]` float32: 1 for the rows that count for `task`."""
    return (batch.labelled[task] & batch.real).astype(jnp.float32)


def masked_sum(values: Array, weights: Array) -> Array:
    """Returns the sum of `values [B]` over the rows with weight; what stands in the others is never read."""
    return jnp.sum(jnp.where(weights > 0, values, 0.0))


def make_loss_vector(model: nn.Module, tasks: Sequence[Task]) -> Callable[..., tuple[Array, Measured]]:
    """Returns `(params, probes, variables, batch, key) -> (losses [T], Measured)`, one forward pass for all tasks.

    A task's loss is the mean of its per-example losses over the rows that are labelled and real, 0 without any.
    `probes [T]` are zeros; the gradient by `probes[t]` is 1 where task t sent a non-finite gradient towards the
    shared parameters, which `gradient_gate` then replaced by zeros.
    """
    position = {task.name: index for index, task in enumerate(tasks)}

    def loss_vector(params, probes, variables, batch, key):
        predictions, variables = model.apply(
            {'params': params, **variables},
            batch,
            train=True,
            gate=lambda task, features: gate_features(features, probes[position[task]]),
            rngs={'dropout': key},
            mutable=list(variables),
        )
        losses, counts, metrics = [], [], {}
        for task in tasks:
            weights = row_weights(batch, task.name)
            targets = hide_unlabelled(batch.targets[task.name], weights > 0)
            per_example = task.loss(predictions[task.name], targets)
            counts.append(weights.sum())
            losses.append(masked_sum(per_example, weights) / jnp.maximum(counts[-1], 1.0))
            metrics[task.name] = task.metrics(predictions[task.name], targets, weights)
        return jnp.stack(losses), Measured(jnp.stack(counts), jax.lax.stop_gradient(metrics), variables)

    return loss_vector


@jax.custom_vjp
def gradient_gate(arrays: PyTree, probe: Array) -> PyTree:
    """Returns `arrays`; in the backward pass, lets a cotangent through only if all of it is finite.

    The gradient by `probe`, a scalar, is 1 where the cotangent was held back and 0 elsewhere.
    """
    return arrays


def _gate_forward(arrays, probe):
    return arrays, None


def _gate_backward(_, cotangents):
    finite = all_finite(cotangents)
    return jax.tree.map(lambda c: jnp.where(finite, c, 0), cotangents), jnp.where(finite, 0.0, 1.0)


gradient_gate.defvjp(_gate_forward, _gate_backward)


def gate_features(features: Features | dict[str, Features], probe: Array) -> Features | dict[str, Features]:
    """Returns `features` behind a `gradient_gate`; the masks, which have no gradient, pass by it."""
    leaves, structure = jax.tree.flatten(features)
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    gated = iter(gradient_gate([leaf for leaf, is_real in zip(leaves, real, strict=True) if is_real], probe))
    return structure.unflatten([next(gated) if r else leaf for leaf, r in zip(leaves, real, strict=True)])
