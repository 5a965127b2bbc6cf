"""The model: encoders, a fusion, a sharing scheme and heads, composed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.subsets import Subset, names_subsets, subset_weights
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
      sharing: `Features` -> `{task: Features}`; parameters at `sharing` (shared). A scheme with tasks in `held` takes
        their heads, gives predictions in the place of their features, and has the heads' parameters.
      heads: task -> head; parameters at `heads/<task>` (task-own).
      reads: task -> `'fused'`; the modality or modalities whose encoders' features its head takes before fusion; or
        `'fused/<objective>'`, a loss that the fusion or the sharing itself gives, which the head takes instead.
      modality_dropout: modality -> share of the rows in which the fusion goes without it in training, so that it learns
        to do with each, or `{'subsets': ...}`, the subsets of which each row keeps one (`core.subsets.subset_weights`);
        the tasks that read single modalities have them all. See `drop_modalities`.
      maps: the modality whose spatial maps go with the fused tokens through the sharing, for tasks with dense heads
        that read `'fused'`; None for those of the fusion, which as a rule has none.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    sharing: nn.Module
    heads: Mapping[str, nn.Module]
    reads: Mapping[str, str | tuple[str, ...]]
    modality_dropout: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    maps: str | None = None

    def setup(self):
        """Groups encoders and heads under one name each.

        Raises:
          ValueError: a task without a head, or one that reads what is not there.
        """
        check_wiring(self)
        self._encode = Members(self.encoders, name='encoders')
        heads = {task: head for task, head in self.heads.items() if task not in held_by(self.sharing)}
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
          ValueError: the batch lacks a modality that has an encoder, fusion and sharing an objective that is read, or
            the encoder named in `maps` spatial maps.
        """
        encoded = self._encoded(batch, train=train)
        read = self._single(encoded)
        if any(is_fused(name) for name in self.reads.values()):
            if train and any(self.modality_dropout.values()):
                encoded = drop_modalities(encoded, self.modality_dropout, self.make_rng('dropout'))
            read |= select_fused(self._fuse(encoded, train=train), self.reads, objectives_of(self.sharing))
        return read

    def predict_alone(self, batch: Batch, *, train: bool) -> dict[str, dict[str, PyTree]]:
        """Returns modality -> {task: predictions}, where the fusion has this modality alone; the encoders run once."""
        encoded = self._encoded(batch, train=train)
        absent = jnp.zeros_like(batch.real)
        found = {}
        for modality in encoded:
            alone = {name: one if name == modality else mask_absent(one, absent) for name, one in encoded.items()}
            fused = select_fused(self._fuse(alone, train=train), self.reads, objectives_of(self.sharing))
            found[modality] = self.predict({**self._single(encoded), **fused}, train=train)
        return found

    def _encoded(self, batch: Batch, *, train: bool) -> dict[str, Features]:
        """Returns modality -> what its encoder makes of it, nothing where it is absent."""
        missing = sorted({*self.encoders} - ({*batch.inputs} & {*batch.present}))
        if missing:
            raise ValueError(
                f'the batch has no {missing[0]!r}, which has an encoder; to go without it, set its `present` to False.'
            )
        # Before the encoders for the sake of their gradients, where 0 times NaN is NaN; after them for their biases.
        inputs = {modality: mask_absent(batch.inputs[modality], batch.present[modality]) for modality in self.encoders}
        return {
            modality: mask_absent(features, batch.present[modality])
            for modality, features in self._encode(inputs, train=train).items()
        }

    def _fuse(self, encoded: Mapping[str, Features], *, train: bool) -> Features:
        """Returns the fused features, with the maps of the modality that `maps` names."""
        fused = self.fusion(encoded, train=train)
        if self.maps is None:
            return fused
        if not encoded[self.maps].maps:
            raise ValueError(
                f'maps names {self.maps!r}, but {type(self.encoders[self.maps]).__name__} gives no spatial maps; name '
                'the modality of a picture.'
            )
        return fused.replace(maps=encoded[self.maps].maps)

    def _single(self, encoded: Mapping[str, Features]) -> dict[str, Features]:
        """Returns what tasks read before fusion."""
        single = {modality for read in self.reads.values() for modality in modalities_of(read)}
        return {modality: encoded[modality] for modality in encoded if modality in single}

    def predict(self, z: Mapping[str, Features | Array], *, train: bool) -> dict[str, PyTree]:
        """Returns `{task: predictions}` for what `features` returned."""
        return self.answer(self.share(z, train=train), train=train)

    def share(self, z: Mapping[str, Features | Array], *, train: bool) -> dict[str, PyTree]:
        """Returns what each task's head takes, for what `features` returned; up to here parameters are shared."""
        shared = self._share_fused(z[FUSED], train=train) if FUSED in z else {}
        z = {**z, **sum_objectives(shared)}
        shared = jax.tree.map(without_objectives, shared, is_leaf=has_objectives)
        return {task: shared[task] if read == FUSED else select(z, read) for task, read in self.reads.items()}

    def answer(self, features: Mapping[str, PyTree], *, train: bool) -> dict[str, PyTree]:
        """Returns `{task: predictions}` for what `share` returned; from here on parameters are the tasks' own."""
        held = held_by(self.sharing)
        predictions = self._head({task: read for task, read in features.items() if task not in held}, train=train)
        return {task: features[task] if task in held else predictions[task] for task in features}

    def _share_fused(self, fused: Features, *, train: bool) -> dict[str, Features | dict[str, Features]]:
        """Returns {task: Features}, and behind a fusion of decisions {task: {modality: Features}}."""
        if not isinstance(self.fusion, DecisionFusion):
            heads = {task: self.heads[task] for task in held_by(self.sharing)}
            return self.sharing(fused, train=train, **({'heads': heads} if heads else {}))
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


def select_fused(
    fused: Features, reads: Mapping[str, str | tuple[str, ...]], of_sharing: tuple[str, ...] = ()
) -> dict[str, Features | Array]:
    """Returns, by the names under which tasks read them, the fused features and those objectives that a task reads.

    Args:
      fused: from the fusion.
      reads: task -> what it reads.
      of_sharing: objectives that the sharing scheme gives, above the fused features.

    Raises:
      ValueError: neither fusion nor sharing have such an objective.
    """
    objectives = fused.objectives if has_objectives(fused) else {}
    selected = {}
    for task, read in reads.items():
        name = read.removeprefix(f'{FUSED}/') if is_fused(read) else None
        if read == FUSED or name in of_sharing:
            selected[FUSED] = without_objectives(fused)
        elif name is not None:
            if name not in objectives:
                raise ValueError(
                    f'task {task!r} learns the objective {name!r}, but the fusion has {sorted(objectives)} and the '
                    f'sharing {sorted(of_sharing)}.'
                )
            selected[read] = objectives[name]
    return selected


def without_objectives(features: PyTree) -> PyTree:
    """Returns plain Features in the place of `Fused`, and whatever else as it is."""
    return Features(features.tokens, features.mask, features.maps) if has_objectives(features) else features


def sum_objectives(shared: Mapping[str, PyTree]) -> dict[str, Array]:
    """Returns, by the names under which tasks read them, the sums over the tasks of the objectives of the sharing."""
    totals: dict[str, Array] = {}
    for features in jax.tree.leaves(shared, is_leaf=has_objectives):
        if has_objectives(features):
            for name, loss in features.objectives.items():
                totals[f'{FUSED}/{name}'] = totals.get(f'{FUSED}/{name}', 0) + loss
    return totals


def has_objectives(features: PyTree) -> bool:
    """Returns whether `features` are those of a module that learns something by itself."""
    return isinstance(features, Fused)


def objectives_of(scheme: nn.Module) -> tuple[str, ...]:
    """Returns what a sharing scheme learns by itself."""
    return getattr(scheme, 'objectives', ())


def held_by(scheme: nn.Module) -> tuple[str, ...]:
    """Returns the tasks whose heads a sharing scheme holds, since other tasks read what these predict."""
    return getattr(scheme, 'held', ())


def select(z: Mapping[str, Features | Array], read: str | tuple[str, ...]) -> PyTree:
    """Returns the features of one modality or an objective, or the features of several modalities by name."""
    return z[read] if isinstance(read, str) else {modality: z[modality] for modality in read}


def mask_absent(tree: PyTree, present: Array) -> PyTree:
    """Returns `tree` of arrays `[B, ...]`, masks among them, with zero and False in the rows `[B]` not `present`."""
    return jax.tree.map(lambda array: fill_masked(array, present), tree)


def drop_modalities(features: Mapping[str, Features], dropout: Mapping[str, Any], key: Array) -> dict[str, Features]:
    """Returns the features without some modalities of each row, drawn for each on its own or as a subset that stays.

    Args:
      features: modality -> Features of B rows.
      dropout: modality -> probability; one that is not named always stays. Or `{'subsets': ...}`, see
        `core.subsets.subset_weights`.
      key: random key.
    """
    modalities = sorted(features)
    has = jnp.stack([jnp.any(features[modality].mask, axis=1) for modality in modalities], axis=1)
    if names_subsets(dropout, modalities):
        stays = keep_subset(has, modalities, subset_weights(dropout, modalities), key)
    else:
        stays = drop_each(has, jnp.array([dropout.get(modality, 0.0) for modality in modalities]), key)
    return {modality: mask_absent(features[modality], stays[:, i]) for i, modality in enumerate(modalities)}


def drop_each(has: Array, rates: Array, key: Array) -> Array:
    """Returns which modalities `[B, M]` stay, each dropped at its rate (ModDrop, Neverova et al. 2015, 1501.00102).

    Each row and modality is drawn on its own. A row that would lose all modalities that it has keeps one of them, each
    with the same chance.

    Args:
      has: `[B, M]` bool, the modalities of each row.
      rates: `[M]`.
      key: random key.
    """
    drop_key, keep_key = jax.random.split(key)
    drop = jax.random.uniform(drop_key, has.shape) < rates[None]
    lottery = jnp.where(has, jax.random.uniform(keep_key, has.shape), -1.0)
    winner = lottery == jnp.max(lottery, axis=1, keepdims=True)
    return has & jnp.where(jnp.any(has & ~drop, axis=1, keepdims=True), ~drop, winner)


def keep_subset(has: Array, modalities: Sequence[str], weights: Mapping[Subset, float], key: Array) -> Array:
    """Returns which modalities `[B, M]` stay: in each row a random subset, in the proportion of the weights.

    Args:
      has: `[B, M]` bool, the modalities of each row.
      modalities: M names.
      weights: subset -> weight; one with a modality that the row lacks is left out, and without any all stays.
      key: random key.
    """
    members = jnp.array([[name in subset for name in modalities] for subset in weights])
    possible = jnp.all(has[:, None] | ~members[None], axis=-1)
    logits = jnp.where(possible, jnp.log(jnp.array(list(weights.values())))[None], -jnp.inf)
    kept = members[jax.random.categorical(key, logits)]
    return jnp.where(jnp.any(possible, axis=-1, keepdims=True), kept, has)


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
    if isinstance(model.fusion, DecisionFusion) and held_by(model.sharing):
        raise ValueError(
            f'{type(model.fusion).__name__} answers for each modality apart, but tasks read the predictions of '
            f'{held_by(model.sharing)[0]!r}; choose another fusion, or a sharing without predictions.'
        )
    if model.maps is not None and model.maps not in model.encoders:
        raise ValueError(f'maps names {model.maps!r}, but there are encoders of {sorted(model.encoders)}.')
    if model.maps is not None and isinstance(model.fusion, DecisionFusion):
        raise ValueError(
            f'{type(model.fusion).__name__} answers for each modality apart and hands on no maps; leave maps out, and '
            'let dense tasks read the modality of the picture.'
        )
    taken = {'head', 'decision'} & {*model.encoders}
    if taken and isinstance(model.fusion, DecisionFusion):
        raise ValueError(f'a modality cannot be called {min(taken)!r} where decisions are fused; rename it.')
    if names_subsets(model.modality_dropout, model.encoders):
        subset_weights(model.modality_dropout, sorted(model.encoders))
        return
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
