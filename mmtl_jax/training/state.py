"""Everything that training changes, as one pytree."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmtl_jax.balancing import Balancer
from mmtl_jax.balancing.base import initial_state
from mmtl_jax.core.tree import overlay
from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.training.backward import feature_example
from mmtl_jax.training.freezing import check_freeze, join, trained_part
from mmtl_jax.training.objective import make_objective, shared_parameters


@struct.dataclass
class TrainState:
    """The state of a run; a checkpoint holds it whole.

    Attributes:
      step: number of steps taken, int32 scalar.
      params: the model's parameters.
      variables: the model's other collections, such as batch statistics.
      optimizer: the optax state.
      balancer: the balancer's state.
      average: exponential moving average of what is trained of `params`, or None.
      key: the run's random key; a step folds its number into it.
      bad_run: `[T + 1]` int32, how many steps in a row each task, and last the whole step, sat out as non-finite.
      freeze: expressions of the paths of the parameters that are not trained; no part of the checkpoint.
    """

    step: Array
    params: PyTree
    variables: PyTree
    optimizer: PyTree
    balancer: PyTree
    average: PyTree
    key: Array
    bad_run: Array
    freeze: tuple[str, ...] = struct.field(pytree_node=False, default=())

    @property
    def trained(self) -> PyTree:
        """The parameters, with `optax.MaskedNode` in the place of what is frozen."""
        return trained_part(self.params, self.freeze)

    @property
    def inference(self) -> dict[str, Any]:
        """The variables to evaluate with: averaged parameters where there are any."""
        params = self.params if self.average is None else join(self.average, self.params)
        return {'params': params, **self.variables}


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    balancer: Balancer,
    *,
    batch: Batch,
    num_tasks: int,
    seed: int | Array,
    average: bool,
    level: str = 'parameters',
    start: Mapping[str, PyTree] | None = None,
) -> TrainState:
    """Returns the state at step 0; a pure function, to be jitted with output shardings.

    Args:
      model: `MultiModalMultiTask`.
      optimizer: an optax transformation; what `make_optimizer` returned knows which parameters are frozen.
      balancer: the task balancer.
      batch: any batch of the run, for its shapes.
      num_tasks: T.
      seed: of the parameters and of everything random in the steps.
      average: whether to keep an exponential moving average of the parameters.
      level: where the balancer gets gradients from, `'parameters'` or `'features'`.
      start: collection -> values that take the place of those that are drawn, such as the weights of pretrained towers.

    Raises:
      ValueError: what is to be frozen is not there, or is all that the balancer weighs by; or the balancer's state has
        the shape of a gradient, and at the features that changes with the batch.
    """
    init_key, dropout_key, run_key = jax.random.split(jax.random.key(seed), 3)
    variables = dict(model.init({'params': init_key, 'dropout': dropout_key}, batch, train=False))
    variables = overlay(variables, start or {})
    params, freeze = variables.pop('params'), tuple(getattr(optimizer, 'freeze', ()))
    check_freeze(freeze, params)
    trained = trained_part(params, freeze)
    by_parameters = balancer.needs != 'losses' and level == 'parameters'
    if freeze and by_parameters and not jax.tree.leaves(shared_parameters(trained)):
        raise ValueError(
            f'freeze {list(freeze)} leaves no shared parameter to train, so that there are no gradients to balance; '
            "take a balancer that needs losses alone, such as 'equal'."
        )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        variables=variables,
        optimizer=optimizer.init(trained),
        balancer=_first_balancer_state(model, balancer, num_tasks, params, trained, variables, batch, level),
        average=jax.tree.map(jnp.copy, trained) if average else None,
        key=run_key,
        bad_run=jnp.zeros(num_tasks + 1, jnp.int32),
        freeze=freeze,
    )


def _first_balancer_state(
    model: nn.Module,
    balancer: Balancer,
    num_tasks: int,
    params: PyTree,
    trained: PyTree,
    variables: PyTree,
    batch: Batch,
    level: str,
) -> PyTree:
    """Returns the balancer's first state; one that needs the Jacobian sees an example of a gradient."""
    if balancer.needs != 'jacobian':
        return initial_state(balancer, num_tasks)
    if level == 'parameters':
        return initial_state(balancer, num_tasks, shared_parameters(trained))
    shared = shared_parameters(params)
    objective = make_objective(model, ())
    one, two = (
        feature_example(objective, shared, variables, jax.tree.map(jnp.zeros_like, rows), jax.random.key(0))
        for rows in (batch, jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch))
    )
    states = [jax.eval_shape(lambda like=like: initial_state(balancer, num_tasks, like)) for like in (one, two)]
    if [leaf.shape for leaf in jax.tree.leaves(states[0])] != [leaf.shape for leaf in jax.tree.leaves(states[1])]:
        raise ValueError(
            'this balancer keeps averages of the gradients from batch to batch, and those of the features belong to '
            "the examples of one batch; set balancing.level to 'parameters'."
        )
    return initial_state(balancer, num_tasks, one)
