"""The model: encoders, a fusion, a sharing scheme and heads, composed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Batch, Features, Fused, PyTree
from mmtl_jax.fusion.decision import DISTRIBUTIONS, Decided, DecisionFusion
from mmtl_jax.nn import fill_masked

FUSED = 'fused'


class Members(nn.Module):
    """Modules by name, so that their parameters stand at `<collection>/<name>`."""

    members: Mapping[str, nn.Module]

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any], *, train: bool) -> dict[str, Any]:
        """Applies each named member to the input of the same name."""
        # A module that arrives as a field is adopted under the field's name; a deep clone is free to take its own.
        return {
            name: self.members[name].clone(parent=self, name=name, _deep_clone=True)(value, train=train)
            for name, value in inputs.items()
        }


class MultiModalMultiTask(nn.Module):
    """`Batch` -> `{task: predictions}`: encode each modality, fuse, share between tasks, predict.

    Attributes:
      encoders: modality -> encoder; parameters at `encoders/<modality>` (shared).
      fusion: `{modality: Features}` -> `Features`; parameters at `fusion` (shared). Behind a fusion of decisions each
        modality is shared and answered for apart, by heads at `heads/<task>/<modality>`; see `fusion.decision`.
      sharing: `Features` -> `{task: Features}`; parameters at `sharing` (shared).
      heads: task -> head; parameters at `heads/<task>` (task-own).
      reads: task -> `'fused'`; the modality or modalities whose encoders' features its head takes before fusion; or
        `'fused/<objective>'`, a loss that the fusion itself gives, which the head takes instead of features.
      modality_dropout: modality -> share of the rows in which the fusion goes without it in training, so that it learns
        to do with each; the tasks that read single modalities have them all. See `drop_modalities`.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    sharing: nn.Module
    heads: Mapping[str, nn.Module]
    reads: Mapping[str, str | tuple[str, ...]]
    modality_dropout: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def setup(self):
        """Groups encoders and heads under one name each.

        Raises:
          ValueError: a task without a head, or one that reads what is not there.
        """
        check_wiring(self)
        self._encode = Members(self.encoders, name='encoders')
        heads = dict(self.heads)
        if isinstance(self.fusion, DecisionFusion):
            for task in heads:
                if self.reads[task] == FUSED:
                    decision = self.fusion.decision(heads[task].distribution)
                    heads[task] = Decided(heads[task], decision, parent=None)
        self._head = Members(heads, name='heads')

    def __call__(self, batch: Batch, *, train: bool) -> dict[str, PyTree]:
        """Returns `{task: predictions}`; `features`, `share` and `answer` are the three parts of the way."""
        return self.predict(self.features(batch, train=train), train=train)

    def features(self, batch: Batch, *, train: bool) -> dict[str, Features | Array]:
        """Returns what the tasks read: `'fused'`, single modalities, and under `'fused/<objective>'` its losses `[B]`.

        Raises:
          ValueError: the batch lacks a modality that has an encoder, or the fusion an objective that a task reads.
        """
        missing = sorted({*self.encoders} - ({*batch.inputs} & {*batch.present}))
        if missing:
            raise ValueError(
                f'the batch has no {missing[0]!r}, which has an encoder; to go without it, set its `present` to False.'
            )
        # Before the encoders for the sake of their gradients, where 0 times NaN is NaN; after them for their biases.
        inputs = {modality: mask_absent(batch.inputs[modality], batch.present[modality]) for modality in self.encoders}
        encoded = {
            modality: mask_absent(features, batch.present[modality])
            for modality, features in self._encode(inputs, train=train).items()
        }
        single = {modality for read in self.reads.values() for modality in modalities_of(read)}
        read = {modality: encoded[modality] for modality in encoded if modality in single}
        if any(is_fused(name) for name in self.reads.values()):
            if train and any(self.modality_dropout.values()):
                encoded = drop_modalities(encoded, self.modality_dropout, self.make_rng('dropout'))
            read |= select_fused(self.fusion(encoded, train=train), self.reads)
        return read

    def predict(self, z: Mapping[str, Features | Array], *, train: bool) -> dict[str, PyTree]:
        """Returns `{task: predictions}` for what `features` returned."""
        return self.answer(self.share(z, train=train), train=train)

    def share(self, z: Mapping[str, Features | Array], *, train: bool) -> dict[str, PyTree]:
        """Returns what each task's head takes, for what `features` returned; up to here parameters are shared."""
        shared = self._share_fused(z[FUSED], train=train) if FUSED in z else {}
        return {task: shared[task] if read == FUSED else select(z, read) for task, read in self.reads.items()}

    def answer(self, features: Mapping[str, PyTree], *, train: bool) -> dict[str, PyTree]:
        """Returns `{task: predictions}` for what `share` returned; from here on parameters are the tasks' own."""
        return self._head(features, train=train)

    def _share_fused(self, fused: Features, *, train: bool) -> dict[str, Features | dict[str, Features]]:
        """Returns {task: Features}, and behind a fusion of decisions {task: {modality: Features}}."""
        if not isinstance(self.fusion, DecisionFusion):
            return self.sharing(fused, train=train)
        by_modality = {
            modality: self.sharing(Features(fused.tokens[:, [index]], fused.mask[:, [index]]), train=train)
            for index, modality in enumerate(sorted(self.encoders))
        }
        return {
            task: {modality: shared[task] for modality, shared in by_modality.items()} for task in self.sharing.tasks
        }


def is_fused(read: str | tuple[str, ...]) -> bool:
    """Returns whether a task reads the fused features, or an objective of the fusion."""
    return isinstance(read, str) and read.split('/')[0] == FUSED


def select_fused(fused: Features, reads: Mapping[str, str | tuple[str, ...]]) -> dict[str, Features | Array]:
    """Returns, by the names under which tasks read them, the fused features and those objectives that a task reads.

    Raises:
      ValueError: the fusion has no such objective.
    """
    objectives = fused.objectives if isinstance(fused, Fused) else {}
    selected = {}
    for task, read in reads.items():
        if read == FUSED:
            selected[FUSED] = Features(fused.tokens, fused.mask, fused.maps)
        elif is_fused(read):
            name = read.removeprefix(f'{FUSED}/')
            if name not in objectives:
                raise ValueError(
                    f'task {task!r} learns the objective {name!r}, but the fusion has {sorted(objectives)}.'
                )
            selected[read] = objectives[name]
    return selected


def select(z: Mapping[str, Features | Array], read: str | tuple[str, ...]) -> PyTree:
    """Returns the features of one modality or an objective, or the features of several modalities by name."""
    return z[read] if isinstance(read, str) else {modality: z[modality] for modality in read}


def mask_absent(tree: PyTree, present: Array) -> PyTree:
    """Returns `tree` of arrays `[B, ...]`, masks among them, with zero and False in the rows `[B]` not `present`."""
    return jax.tree.map(lambda array: fill_masked(array, present), tree)


def drop_modalities(features: Mapping[str, Features], rates: Mapping[str, float], key: Array) -> dict[str, Features]:
    """Returns the features without each modality in its share of the rows (ModDrop, Neverova et al. 2015, 1501.00102).

    Each row and modality is drawn on its own. A row that would lose all modalities that it has keeps one of them, each
    with the same chance.

    Args:
      features: modality -> Features of B rows.
      rates: modality -> probability; one that is not named always stays.
      key: random key.
    """
    modalities = sorted(features)
    has = jnp.stack([jnp.any(features[modality].mask, axis=1) for modality in modalities], axis=1)
    drop_key, keep_key = jax.random.split(key)
    thresholds = jnp.array([rates.get(modality, 0.0) for modality in modalities])
    drop = jax.random.uniform(drop_key, has.shape) < thresholds[None]
    lottery = jnp.where(has, jax.random.uniform(keep_key, has.shape), -1.0)
    winner = lottery == jnp.max(lottery, axis=1, keepdims=True)
    stays = has & jnp.where(jnp.any(has & ~drop, axis=1, keepdims=True), ~drop, winner)
    return {modality: mask_absent(features[modality], stays[:, i]) for i, modality in enumerate(modalities)}


def check_wiring(model: MultiModalMultiTask):
    """Raises a `ValueError` that names the first task whose head, or what it reads, the model lacks."""
    if set(model.heads) != set(model.reads):
        raise ValueError(
            f'heads and reads must name the same tasks, got {sorted(model.heads)} and {dict(model.reads)}.'
        )
    for task, read in model.reads.items():
        if read == FUSED and task not in model.sharing.tasks:
            raise ValueError(
                f'task {task!r} reads {FUSED!r}; name it in the tasks {model.sharing.tasks} of the sharing.'
            )
        distribution = getattr(model.heads[task], 'distribution', None)
        if read == FUSED and isinstance(model.fusion, DecisionFusion) and distribution not in DISTRIBUTIONS:
            raise ValueError(
                f'task {task!r}: {type(model.fusion).__name__} joins one prediction per modality, but what '
                f'{type(model.heads[task]).__name__} predicts cannot be averaged; let the task read a single modality.'
            )
        unknown = sorted({*modalities_of(read)} - {*model.encoders})
        if unknown:
            raise ValueError(f'task {task!r} reads {unknown[0]!r}, but there are encoders of {sorted(model.encoders)}.')
    for modality, rate in model.modality_dropout.items():
        if modality not in model.encoders:
            raise ValueError(
                f'modality_dropout names {modality!r}, but there are encoders of {sorted(model.encoders)}.'
            )
        if not 0 <= rate < 1:
            raise ValueError(f'modality_dropout of {modality!r} must be at least 0 and below 1, got {rate}.')


def modalities_of(read: str | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the modalities that a task reads before fusion."""
    if isinstance(read, str):
        return () if is_fused(read) else (read,)
    return tuple(read)
