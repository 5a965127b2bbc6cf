"""OGM-GE: slows down the encoders of the modalities that learn faster than the others."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence

import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.losses import hide_unlabelled
from mmtl_jax.model import FUSED, MultiModalMultiTask
from mmtl_jax.tasks import Task
from mmtl_jax.training.gradient import Outcome
from mmtl_jax.training.objective import row_weights
from mmtl_jax.training.state import TrainState

MODALITIES = 'modalities'
Gradient = Callable[[TrainState, Batch], tuple[PyTree, Outcome]]


@dataclasses.dataclass(frozen=True)
class OGMGE:
    """On-the-fly gradient modulation with generalisation enhancement (Peng et al. 2022, 2203.15332).

    With s_m,i the probability that the model gives to the truth of row i when it has modality m alone, the discrepancy
    ratio is rho_m = sum_i s_m,i / sum_i mean_{n != m} s_n,i over the rows that have m and another modality, and the
    gradient of the encoder of m is multiplied by (section 3.2)

        k_m = 1 - tanh(alpha rho_m) if rho_m > 1 else 1.

    Then each array of the gradient of every encoder gets Gaussian noise with the standard deviation that its entries
    had before (GE, section 3.3, as in the published code).

    Where it departs from the paper: that splits the logits of a linear head behind two concatenated modalities into the
    part of each. Here fusion, sharing and head answer once more for each modality, the others absent, so that any of
    them will do, and the ratio compares one of any number of modalities with the mean of the others. For a loss that is
    no cross-entropy, s = exp(-loss). Of several tasks the geometric mean of the ratios counts. The published code
    modulates kernels of convolutions alone; here it is all parameters of the encoder.

    Attributes:
      alpha: 0.1 to 0.8 in the paper; the larger, the slower the modalities that lead.
      noise: whether to add it (GE); without, it is OGM alone.
      tasks: by whose answers the modalities are compared; None for all that read the fusion.
      until: the step from which on gradients are left as they are; None for never.
    """

    alpha: float = 0.5
    noise: bool = True
    tasks: tuple[str, ...] | None = None
    until: int | None = None

    def __post_init__(self):
        """Checks the numbers."""
        if not self.alpha > 0:
            raise ValueError(f'balancing.ogm_ge.alpha is {self.alpha}; it must be a number above 0.')
        if self.until is not None and self.until < 1:
            raise ValueError(f'balancing.ogm_ge.until is {self.until}; it must be a step from 1 on, or None.')


def with_modulation(gradient: Gradient, model: MultiModalMultiTask, tasks: Sequence[Task], options: OGMGE) -> Gradient:
    """Returns `gradient` with OGM-GE on top; its outcome records `modalities/<modality>/coefficient` and `.../ratio`.

    Args:
      gradient: from `make_gradient`.
      model: that it is of.
      tasks: of the run.
      options: of the method.

    Raises:
      ValueError: there is one modality, or no task to compare by.
    """
    compared = compared_tasks(options, tasks, model.encoders)

    def modulated(state: TrainState, batch: Batch) -> tuple[PyTree, Outcome]:
        gradients, outcome = gradient(state, batch)
        modalities = sorted(model.encoders)
        running = True if options.until is None else state.step < options.until
        ratios = jax.lax.stop_gradient(discrepancy_ratios(model, compared, state, batch))
        coefficients = jnp.where(running, modulation_coefficients(ratios, options.alpha), 1.0)
        # Another stream than that of dropout, which has the step's key itself.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        scale = jnp.where(running, 1.0, 0.0) if options.noise else None
        encoders = dict(gradients['encoders'])
        for index, modality in enumerate(modalities):
            if modality in encoders:
                of_modality = jax.random.fold_in(key, index)
                encoders[modality] = modulate(encoders[modality], coefficients[index], of_modality, scale)
        recorded = {
            f'{MODALITIES}/{modality}/{name}': values[index]
            for name, values in (('coefficient', coefficients), ('ratio', ratios))
            for index, modality in enumerate(modalities)
        }
        return {**gradients, 'encoders': encoders}, outcome.replace(recorded={**outcome.recorded, **recorded})

    return modulated


def discrepancy_ratios(model: MultiModalMultiTask, tasks: Sequence[Task], state: TrainState, batch: Batch) -> Array:
    """Returns rho `[M]`, of the modalities in alphabetical order; 1 where nothing can be compared."""
    variables = {'params': state.params, **state.variables}
    answers = model.apply(variables, batch, train=False, method='predict_alone')
    present = jnp.stack([batch.present[modality] for modality in sorted(answers)])
    logs = []
    for task in tasks:
        labelled = row_weights(batch, task.name) > 0
        targets = hide_unlabelled(batch.targets[task.name], labelled)
        losses = jnp.stack([task.loss(answers[modality][task.name], targets) for modality in sorted(answers)])
        logs.append(log_ratios(-losses, present & labelled[None]))
    known = jnp.isfinite(jnp.stack(logs))
    total = jnp.sum(jnp.where(known, jnp.stack(logs), 0.0), axis=0)
    return jnp.exp(total / jnp.maximum(jnp.sum(known, axis=0), 1))


def log_ratios(log_scores: Array, usable: Array) -> Array:
    """Returns log rho `[M]`; not finite for a modality without a row that has another one too.

    Args:
      log_scores: `[M, B]`, log s.
      usable: `[M, B]` bool, the row is labelled and has the modality.
    """
    other = ~jnp.eye(len(usable), dtype=bool)[:, :, None] & usable[None]
    number = jnp.sum(other, axis=1)
    compared = usable & (number > 0)
    sum_exp = functools.partial(jax.nn.logsumexp, axis=1)
    of_others = sum_exp(jnp.where(other, log_scores[None], -jnp.inf)) - jnp.log(jnp.maximum(number, 1))
    return sum_exp(jnp.where(compared, log_scores, -jnp.inf)) - sum_exp(jnp.where(compared, of_others, -jnp.inf))


def modulation_coefficients(ratios: Array, alpha: float) -> Array:
    """Returns k `[M]` for rho `[M]` (2203.15332, section 3.2)."""
    return jnp.where(ratios > 1, 1 - jnp.tanh(alpha * ratios), 1.0)


def modulate(gradient: PyTree, coefficient: Array, key: Array, noise: Array | None) -> PyTree:
    """Returns `coefficient` times the gradient of one encoder, and `noise` times the Gaussian noise of GE, if given."""
    leaves, structure = jax.tree.flatten(gradient)
    keys = jax.random.split(key, max(len(leaves), 1))

    def one(leaf: Array, key: Array) -> Array:
        scaled = coefficient.astype(leaf.dtype) * leaf
        if noise is None:
            return scaled
        return scaled + noise.astype(leaf.dtype) * jnp.std(leaf) * jax.random.normal(key, leaf.shape, leaf.dtype)

    return structure.unflatten([one(leaf, key) for leaf, key in zip(leaves, keys, strict=True)])


def compared_tasks(options: OGMGE, tasks: Sequence[Task], modalities: Collection[str]) -> list[Task]:
    """Returns the tasks by whose answers OGM-GE compares the modalities.

    Raises:
      ValueError: there is one modality, or no such task.
    """
    if len(modalities) < 2:
        raise ValueError(
            f'balancing.ogm_ge compares modalities, but there is only {sorted(modalities)}; add one, or leave it out.'
        )
    reading = [task.name for task in tasks if task.reads == FUSED]
    names = reading if options.tasks is None else list(options.tasks)
    strange = [name for name in names if name not in reading]
    if strange or not names:
        got = f'balancing.ogm_ge.tasks names {strange[0]!r}' if strange else 'balancing.ogm_ge has no task to go by'
        raise ValueError(f'{got}; it goes by tasks that read the fused features, and these are {reading}.')
    return [task for task in tasks if task.name in names]
