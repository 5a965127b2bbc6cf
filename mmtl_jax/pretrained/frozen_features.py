"""Features of frozen towers: computed once for each different input, kept beside the data set, read like any key."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmtl_jax import data
from mmtl_jax.core.files import plain
from mmtl_jax.core.types import Array, Features
from mmtl_jax.nn import masked_mean
from mmtl_jax.pretrained.by_name import load
from mmtl_jax.pretrained.content import content_hash
from mmtl_jax.pretrained.tokenizer import check_tokenizer
from mmtl_jax.pretrained.tower import Tower

# Counted up when the same specification begins to give other features.
VERSION = 1
POOLINGS = ('mean', 'none')
DEFAULT_FOLDER = '~/tensorflow_datasets/frozen_features'


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """What is computed of an example.

    Attributes:
      key: what the tower reads after `steps`.
      tower: an encoder with weights, as a config's encoder: `{'name': 'BERT', 'pretrained': path}`.
      steps: specs of the transforms that belong to the weights, such as the tokenizer.
      pooling: 'mean' gives one vector of the tokens `[D]`, 'none' all of them `[N, D]`.
      batch_size: inputs at a time.
      buckets: padded lengths of a sequence, so that short ones are cheap; by default all are padded to the longest.
      vocabularies: what the steps refer to by name.
    """

    key: str
    tower: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]] = ()
    pooling: str = 'mean'
    batch_size: int = 32
    buckets: Sequence[int] | None = None
    vocabularies: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.pooling not in POOLINGS:
            raise ValueError(f'the pooling of frozen features is one of {list(POOLINGS)}, got {self.pooling!r}.')
        lacking = [name for name in ('name', 'pretrained') if name not in self.tower]
        if lacking:
            raise ValueError(f'the tower of frozen features lacks {lacking[0]!r}, got {dict(self.tower)}.')

    @functools.cached_property
    def weights(self) -> str:
        """A hash of the weights."""
        return content_hash(self.tower['pretrained'])

    @functools.cached_property
    def preprocess(self) -> data.Preprocess:
        """The way from an example to what the tower reads."""
        return data.build_preprocess(
            inputs={'input': self.key}, targets={}, steps=self.steps, vocabularies=self.vocabularies
        )

    def load(self) -> Tower:
        """Reads the weights.

        Raises:
          ValueError: they do not fit the architecture, or the tokenizer among the steps.
        """
        arguments = dict(self.tower)
        tower = load(arguments.pop('name'), arguments.pop('pretrained'), **arguments)
        check_tokenizer(tower.encoder, self.key, self.steps, self.vocabularies)
        return tower

    def about(self, source: data.Source) -> dict[str, Any]:
        """Returns all that the features depend on, JSON-able."""
        used = {step.get('vocabulary') for step in self.steps if isinstance(step, Mapping)}
        tower = {name: value for name, value in self.tower.items() if name != 'pretrained'}
        return plain(
            {
                'version': VERSION,
                'key': self.key,
                'tower': tower,
                'weights': self.weights,
                'steps': self.steps,
                'vocabularies': {name: value for name, value in self.vocabularies.items() if name in used},
                'pooling': self.pooling,
                'source': data.fingerprint(source, self.keys(source)),
            }
        )

    def keys(self, source: data.Source) -> tuple[str, ...]:
        """Returns the keys of the data set that decide on the features."""
        return tuple(key for key in self.preprocess.keys_to_read(source) if key != 'id')


def with_frozen_features(
    source: data.Source,
    features: Mapping[str, FrozenFeatures],
    *,
    folder: str | pathlib.Path = DEFAULT_FOLDER,
    say: Callable[[str], None] = lambda sentence: None,
) -> data.Source:
    """Returns the source, whose examples have the features as further keys.

    What was computed before, with the same weights from the same data, is read; so a head trains within seconds.

    Args:
      source: the data set.
      features: key to write -> what it holds.
      folder: where all tables are kept.
      say: is told, in a sentence, when features are computed.

    Raises:
      ValueError: weights, steps or data that do not fit.
    """
    tables = {}
    for key, wanted in features.items():
        if key in source.keys:
            raise ValueError(f'{source.name!r} has a key {key!r} already; give the frozen features another.')
        wanted.preprocess.check_keys(source)
        about = wanted.about(source)
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        place = pathlib.Path(folder).expanduser() / source.name.replace('/', '-') / f'{key}-{digest[:20]}'
        if place.exists():
            tables[key] = data.SideTable(place)
        else:
            first, numbers = data.distinct_rows(source, wanted.keys(source))
            say(f'computing {key} of {len(first)} different inputs ({source.name}, {source.split}), kept in {place}.')
            tables[key] = _compute(wanted, source, first, numbers, place, about)
    return data.SourceWithTables(source, tables) if tables else source


def _compute(
    wanted: FrozenFeatures,
    source: data.Source,
    first: Sequence[int],
    numbers: np.ndarray,
    place: pathlib.Path,
    about: Mapping[str, Any],
) -> data.SideTable:
    """Computes the features of the rows `first`, and writes them for all rows: `numbers` tells whose each has."""
    selected = source.select(wanted.preprocess.keys_to_read(source))
    prepared = data.prepare(data.SequenceSource(_Some(selected, first), source.name, source.split), wanted.preprocess)
    layout = data.make_layout(prepared, buckets=wanted.buckets and {'input': wanted.buckets})
    tower = wanted.load()
    apply = jax.jit(
        lambda variables, inputs: _pool(tower.encoder.apply(variables, inputs, train=False), wanted.pooling)
    )
    variables, values, places = jax.device_put(tower.variables), [], np.full(len(first), -1)
    for rows, batch in data.eval_loader(prepared, batch_size=wanted.batch_size, layout=layout):
        tokens, mask = jax.device_get(apply(variables, batch.inputs['input']))
        for row, value, real, present in zip(rows, tokens, mask, batch.present['input'] & batch.real, strict=True):
            if present:
                places[row] = len(values)
                values.append(value if wanted.pooling == 'mean' else value[real])
    return data.write_side_table(place, places[numbers], values, about)


def _pool(features: Features, pooling: str) -> tuple[Array, Array]:
    """Returns one vector a row `[B, D]` or all tokens `[B, N, D]`, and the mask of the tokens."""
    mean = pooling == 'mean'
    return masked_mean(features.tokens, features.mask) if mean else features.tokens, features.mask


@dataclasses.dataclass(frozen=True)
class _Some(Sequence):
    """Some rows of a source."""

    source: data.Source
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.source[self.rows[index]]
