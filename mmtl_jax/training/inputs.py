"""The data of a run: from a description in plain values to sources, fitted vocabularies, shapes and loaders."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from mmtl_jax import data
from mmtl_jax.core.build import check_arguments, construct
from mmtl_jax.core.types import Batch
from mmtl_jax.pretrained.frozen_features import FrozenFeatures, with_frozen_features
from mmtl_jax.pretrained.tokenizer import tokenizer_json
from mmtl_jax.training.progress import stderr_console

TRAIN = 'train'
TOKENIZER = 'tokenizer'


class Inputs:
    """The splits of a run, each read when it is first asked for.

    What is fitted on the training split (vocabularies, statistics, padded lengths), and the published tokenizers and
    weights that the data goes through, are part of `fitted`; a saved run hands it back, so that evaluation and
    prediction never look at the training data, and never mix up what belongs to them.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        targets: Mapping[str, Any],
        batch_size: int,
        eval_batch_size: int | None = None,
        vocabularies: Mapping[str, Mapping[str, Any]] | None = None,
        frozen_features: Mapping[str, Mapping[str, Any]] | None = None,
        steps: Sequence[Mapping[str, Any]] = (),
        augment: Sequence[Mapping[str, Any]] = (),
        eval_steps: Sequence[Mapping[str, Any]] = (),
        splits: Mapping[str, str] | None = None,
        buckets: Mapping[str, Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        sampling: Mapping[str, Any] | None = None,
        modality_dropout: float | Mapping[str, Any] = 0.0,
        cache_gigabytes: float = 2.0,
        num_threads: int = 2,
        num_workers: int = 0,
        bad_examples: str = 'error',
        fitted: Mapping[str, Any] | None = None,
        seed: int = 0,
    ):
        """Takes the description; nothing is read yet.

        Args:
          sources: one mapping per data set, `{'name': <TFDS name or dotted path>, 'data_dir': ..., 'builder_kwargs':
            {...}}`; with `inputs`, `targets`, `steps`, `augment` or `eval_steps` of its own where it differs.
          inputs: modality -> field of the example; see `data.build_preprocess`.
          targets: task -> field of the example.
          batch_size: rows of a training batch, over all devices.
          eval_batch_size: rows of an evaluation batch, by default the same.
          vocabularies: name -> what is fitted on the training split of the first source, or
            `{'kind': 'tokenizer', 'path': ...}` for the tokenizer that belongs to published weights.
          frozen_features: key -> features of a frozen tower that an example has under it before `steps`, computed once
            and kept; see `pretrained.frozen_features.FrozenFeatures`.
          steps: deterministic transforms, run once per example.
          augment: random transforms of training, run per visit.
          eval_steps: their deterministic counterparts.
          splits: `train`, `validation` and `test` -> the data sets' own split names, such as `train[:90%]`.
          buckets: one modality -> its padded lengths.
          weights: of the sources in the mixture, by default their sizes.
          sampling: arguments of `data.Sampling`, such as `{'by': 'category', 'power': 0.5}`; None draws all rows alike.
          modality_dropout: share of the rows from which a modality is hidden in training, for all or by name, or the
            subsets of which each row keeps one; see `data.modality_dropout`. At least one modality is kept.
          cache_gigabytes: prepared examples are kept in memory up to here.
          num_threads: that prepare and load.
          num_workers: processes that load where the examples do not fit in memory.
          bad_examples: 'error' or 'skip'.
          fitted: of a saved run.
          seed: of the shuffling and the augmentation.
        """
        if not sources:
            raise ValueError('data.sources is empty; name at least one data set.')
        self._sources = [dict(source) for source in sources]
        self._fields = {
            'inputs': inputs, 'targets': targets, 'steps': steps, 'augment': augment, 'eval_steps': eval_steps
        }  # fmt: skip
        self._vocabulary_specs, self._frozen_specs = vocabularies or {}, frozen_features or {}
        self._splits = {TRAIN: 'train', 'validation': 'validation', 'test': 'test', **(splits or {})}
        self._buckets, self._weights, self._modality_dropout = buckets, weights, modality_dropout
        self._prepare = {
            'cache_bytes': int(cache_gigabytes * 2**30), 'num_threads': num_threads, 'bad_examples': bad_examples
        }  # fmt: skip
        self._sampling = None if sampling is None else construct('data.sampling', data.Sampling, sampling)
        self._num_workers, self._fitted, self._seed = num_workers, fitted, seed
        self._read: dict[str, data.PreparedSource] = {}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size

    @functools.cached_property
    def vocabularies(self) -> dict[str, Any]:
        """What was fitted on the training split, by name."""
        if self._fitted is not None:
            return dict(self._fitted['vocabularies'])
        published = {name: spec for name, spec in self._vocabulary_specs.items() if spec.get('kind') == TOKENIZER}
        found = {name: _tokenizer(name, spec) for name, spec in published.items()}
        specs = {name: spec for name, spec in self._vocabulary_specs.items() if name not in published}
        if not specs:
            return found
        with explain_damaged_files(self._sources[0]):
            return found | data.fit_vocabularies(specs, self.source(TRAIN))

    @functools.cached_property
    def frozen_features(self) -> dict[str, FrozenFeatures]:
        """What is computed of the examples by frozen towers, by key.

        Raises:
          ValueError: a specification that does not fit, or other weights than those of the saved run.
        """
        found = {}
        for key, spec in self._frozen_specs.items():
            check_arguments(f'data.frozen_features.{key}', FrozenFeatures, {**spec, 'vocabularies': {}})
            found[key] = FrozenFeatures(**spec, vocabularies=self.vocabularies)
            known = (self._fitted or {}).get('weights', {}).get(key)
            if known not in (None, found[key].weights):
                raise ValueError(
                    f'this run was trained on frozen features {key!r} of other weights than those that are now at '
                    f'{found[key].tower["pretrained"]}; bring the weights back, or train again.'
                )
        return found

    @functools.cached_property
    def layout(self) -> data.Layout:
        """The padded shapes of the training batches."""
        if self._fitted is not None:
            return data.Layout.from_json(self._fitted['layout'])
        return data.make_layout(self._train_rows, buckets=self._buckets)

    @property
    def fitted(self) -> dict[str, Any]:
        """What a saved run needs instead of the training split, JSON-able."""
        weights = {key: features.weights for key, features in self.frozen_features.items()}
        return {'vocabularies': self.vocabularies, 'weights': weights, 'layout': self.layout.to_json()}

    def source(self, split: str, index: int = 0) -> data.Source:
        """Returns the examples of a split of the source number `index`, as the data set has them.

        Raises:
          ValueError: there is no such data set or split, it is empty, or its files are damaged.
        """
        spec = self._sources[index]
        with explain_damaged_files(spec):
            return data.load_source(
                spec['name'],
                self._split_name(split),
                data_dir=spec.get('data_dir'),
                builder_kwargs=spec.get('builder_kwargs'),
            )

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns the names of the classes of a key of the first source, `()` if it has none."""
        # Every split knows them, and the training split of a saved run may be gone.
        return self.source(TRAIN if self._fitted is None else 'validation').class_names(key)

    def rows(self, split: str) -> data.PreparedSource:
        """Returns the prepared examples of an evaluation split, those of the first source."""
        if split not in self._read:
            self._read[split] = self._prepared(split, 0)
        return self._read[split]

    def check(self, split: str) -> None:
        """Reads an evaluation split, so that what is wrong with it shows before the training rather than after.

        Raises:
          ValueError: there is no such split, it is empty, or an example does not fit.
        """
        self._evaluation_layout(split)

    @property
    def skipped(self) -> list[str]:
        """One sentence for each example that was met so far and cannot be used, with `bad_examples` 'skip'."""
        read = [*self.__dict__.get('_train_rows', ()), *self._read.values()]
        return [sentence for rows in read for sentence in rows.bad.values()]

    def empty_batches(self) -> list[Batch]:
        """Returns one batch of zeros for each shape of the training, for initialisation and compilation."""
        return [data.empty_batch(self.layout, self.batch_size, bucket) for bucket in range(self.layout.num_buckets)]

    def train_batches(self, sharding: jax.sharding.Sharding) -> data.DeviceIterator:
        """Returns the endless training batches on the devices."""
        loader = data.train_loader(
            self._train_rows,
            batch_size=self.batch_size,
            seed=self._seed,
            layout=self.layout,
            weights=self._weights,
            sampling=self._sampling,
            modality_dropout=self._modality_dropout,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=self._prepare['num_threads'],
            num_workers=self._num_workers,
        )
        return data.prefetch_to_device(loader, sharding)

    def eval_batches(
        self, split: str, sharding: jax.sharding.Sharding, corrupt: Callable[[int], Mapping[str, Any]] | None = None
    ) -> data.DeviceIterator:
        """Returns one pass over an evaluation split: row indices and batches on the devices.

        Args:
          split: to be evaluated.
          sharding: of every array.
          corrupt: one level of `corrupt_input`, None for clean inputs.
        """
        loader = data.eval_loader(
            self.rows(split),
            batch_size=self.eval_batch_size,
            layout=self._evaluation_layout(split),
            corrupt=corrupt,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return data.prefetch_to_device(loader, sharding)

    def corrupt_input(self, split: str, modality: str, corruption: str) -> data.CorruptInput:
        """Returns a modality of an evaluation split under a corruption; see `data.corrupt_input`."""
        layout = self._evaluation_layout(split)
        return data.corrupt_input(self.rows(split), layout, modality, corruption, seed=self._seed)

    @functools.cached_property
    def _train_rows(self) -> list[data.PreparedSource]:
        rows = [self._prepared(TRAIN, index) for index in range(len(self._sources))]
        for source in rows if self._sampling is not None else ():
            self._sampling.check(source)
        return rows

    @functools.cache  # noqa: B019 - one object lives as long as the run
    def _evaluation_layout(self, split: str) -> data.Layout:
        return data.make_layout(self.rows(split), like=self.layout)

    def _prepared(self, split: str, index: int) -> data.PreparedSource:
        source = with_frozen_features(self.source(split, index), self.frozen_features, say=stderr_console().print)
        return data.prepare(source, self._preprocess(index), **self._prepare)

    def _preprocess(self, index: int) -> data.Preprocess:
        fields = {name: self._sources[index].get(name, common) for name, common in self._fields.items()}
        return data.build_preprocess(**fields, vocabularies=self.vocabularies)

    def _split_name(self, split: str) -> str:
        if split not in self._splits:
            raise ValueError(f'no split {split!r}; choose one of {sorted(self._splits)}.')
        return self._splits[split]


def _tokenizer(name: str, spec: Mapping[str, Any]) -> str:
    """Returns a published tokenizer as text."""
    arguments = {key: value for key, value in spec.items() if key != 'kind'}
    return construct(f'vocabulary {name!r}', tokenizer_json, arguments)


@contextlib.contextmanager
def explain_damaged_files(spec: Mapping[str, Any]) -> Iterator[None]:
    """Turns what array_record raises on a damaged file of a data set into a `ValueError` that says what to do."""
    try:
        yield
    except RuntimeError as error:
        folder = spec.get('data_dir') or '~/tensorflow_datasets'
        raise ValueError(
            f'the files of the data set {spec["name"]!r} in {folder} cannot be read ({error}); remove its folder '
            'there, and it will be prepared again.'
        ) from error
