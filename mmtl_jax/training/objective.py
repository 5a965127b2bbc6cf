"""The objective: a batch becomes the vector of task losses."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.tasks import Task
from mmtl_jax.training.freezing import join


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


def shared_parameters(params: PyTree) -> PyTree:
    """Returns the model's parameters without those of the heads, which are the tasks' own."""
    return {name: part for name, part in params.items() if name != 'heads'}


@dataclasses.dataclass(frozen=True)
class Objective:
    """The forward pass in its three parts; each takes its own parameters, returns the model's other variables as well.

    Attributes:
      features: (params, variables, batch, key) -> (z, variables): encoders and fusion.
      share: (params, variables, z, key) -> ({task: what its head takes}, variables): the sharing scheme.
      losses: (params, variables, {task: what its head takes}, batch, key) -> (losses `[T]`, `Measured`): the heads. A
        task's loss is the mean of its per-example losses over the rows that are labelled and real, 0 without any.
    """

    features: Callable[..., tuple[PyTree, PyTree]]
    share: Callable[..., tuple[PyTree, PyTree]]
    losses: Callable[..., tuple[Array, Measured]]

    def completed(self, params: PyTree) -> 'Objective':
        """Returns the same as functions of what is trained alone; what is frozen they take from `params`."""

        def complete(function: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
            return lambda trained, *inputs: function(join(trained, {name: params[name] for name in trained}), *inputs)

        return Objective(complete(self.features), complete(self.share), complete(self.losses))


def make_objective(model: nn.Module, tasks: Sequence[Task]) -> Objective:
    """Returns the objective of a model under training; T tasks, in the order of the loss vector."""

    def part(method, params, variables, inputs, key):
        return model.apply(
            {'params': params, **variables},
            inputs,
            train=True,
            method=method,
            rngs={'dropout': key},
            mutable=list(variables),
        )

    def losses(params, variables, features, batch, key):
        predictions, variables = part('answer', params, variables, features, key)
        values, counts, metrics = [], [], {}
        for task in tasks:
            weights = row_weights(batch, task.name)
            targets = hide_unlabelled(batch.targets[task.name], weights > 0)
            per_example = task.loss(predictions[task.name], targets)
            counts.append(weights.sum())
            values.append(masked_sum(per_example, weights) / jnp.maximum(counts[-1], 1.0))
            metrics[task.name] = task.metrics(predictions[task.name], targets, weights)
        return jnp.stack(values), Measured(jnp.stack(counts), jax.lax.stop_gradient(metrics), variables)

    return Objective(functools.partial(part, 'features'), functools.partial(part, 'share'), losses)
