"""Sources: random access to examples, from TFDS (array_record, no TensorFlow) or from one's own function."""

import contextlib
import dataclasses
import functools
import importlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmtl_jax.data.preparation import make_builder, prepare_builder
from mmtl_jax.data.transforms.base import Example

# Examples of one's own source that are read to learn its keys.
LOOK_AT = 16
# What TFDS's data sets call the name of an example; the first that there is.
ID_KEYS = ('id', 'image/filename', 'image_id', 'file_name', 'image/id')
DOTTED_PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)+')


class Source(Protocol):
    """Random access to examples.

    Attributes:
      name: the data set.
      split: the part of it.
      keys: what an example can hold.
    """

    name: str
    split: str
    keys: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """Returns example `index`; raises an `IndexError` past the end."""
        ...

    def select(self, keys: Iterable[str]) -> 'Source':
        """Returns a source that reads and decodes these keys only."""
        ...

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label, () if they have none."""
        ...


def load_source(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
) -> Source:
    """Returns the examples of one split.

    Args:
      name: a TFDS name, such as 'synthetic', 'stamps', 'stamp_scenes' or 'name/config', prepared on first use; or the
        dotted path of a function `f(split, **builder_kwargs)` that returns anything with `len` and integer indexing,
        whose examples are mappings.
      split: the split's name; TFDS slices such as 'train[:80%]' work too.
      data_dir: where TFDS keeps its data, default `~/tensorflow_datasets`.
      builder_kwargs: arguments of the builder or of the function.

    Raises:
      ValueError: nothing has that name, the split does not exist or is empty, or the data cannot be prepared here.
    """
    builder_kwargs = dict(builder_kwargs or {})
    if DOTTED_PATH.fullmatch(name):
        source = _from_function(name, split, builder_kwargs)
    else:
        prepare_builder(name, data_dir, builder_kwargs)
        source = TfdsSource(name, split, data_dir, builder_kwargs)
    if not len(source):
        raise ValueError(f'the split {split!r} of {name!r} has no examples.')
    return source


def read_values(source: Source, key: str) -> list[Any]:
    """Returns the value of `key` in every example, without decoding anything else."""
    selected = source.select([key])
    return [selected[index].get(key) for index in range(len(selected))]


def example_id(example: Example, source: Source, index: int) -> str:
    """Returns the example's own `id` or the like (`ID_KEYS`), or its split and number."""
    key = id_key(example)
    return str(example[key]) if key and example[key] not in (None, '') else f'{source.split}[{index}]'


def id_key(keys: Iterable[str]) -> str | None:
    """Returns the key of an example's name, None if there is none."""
    keys = tuple(keys)
    return next((key for key in ID_KEYS if key in keys), None)


def flatten(example: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an example in which the value at 'bbox' in the mapping 'objects' is called 'objects/bbox'."""
    flat = {}
    for key, value in example.items():
        if isinstance(value, Mapping):
            flat |= {f'{key}/{name}': entry for name, entry in flatten(value).items()}
        else:
            flat[key] = value
    return flat


@dataclasses.dataclass(frozen=True)
class SequenceSource:
    """A source over anything with `len` and integer indexing.

    Attributes:
      examples: the examples, mappings.
      name: the data set.
      split: the part of it.
      selected: the keys that are handed on, None for all.
    """

    examples: Sequence[Example]
    name: str = 'examples'
    split: str = 'train'
    selected: tuple[str, ...] | None = None

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys that some examples have; an example may lack a key, which counts as missing, like None."""
        if self.selected is not None:
            return self.selected
        found = {}
        for index in np.unique(np.linspace(0, len(self) - 1, min(LOOK_AT, len(self))).astype(int)):
            # One that cannot be read is reported by name when it is prepared.
            with contextlib.suppress(Exception):
                found |= dict.fromkeys(self[index])
        return tuple(found)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        example = self.examples[int(index)]
        if not isinstance(example, Mapping):
            raise ValueError(
                f'{self.name}: an example must be a mapping of keys to values, got {type(example).__name__}.'
            )
        example = flatten(example)
        if self.selected is None:
            return example
        return {key: example[key] for key in self.selected if key in example}

    def select(self, keys: Iterable[str]) -> 'SequenceSource':
        """Returns a source that hands on these keys only."""
        return dataclasses.replace(self, selected=tuple(keys))

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns (), such a source does not know the names of its classes."""
        del key
        return ()


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared TFDS data set; it opens its files on first use, so it can travel to worker processes.

    Attributes:
      name: the TFDS name.
      split: the split's name.
      data_dir: where TFDS keeps its data.
      builder_kwargs: arguments of the builder.
      selected: the keys that are decoded, None for all.
    """

    name: str
    split: str
    data_dir: str | None = None
    builder_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    selected: tuple[str, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def builder(self) -> tfds.core.DatasetBuilder:
        """The TFDS builder, with the data set's description, licence and features."""
        return make_builder(self.name, self.data_dir, self.builder_kwargs)

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of every example."""
        return tuple(self._by_key) if self.selected is None else self.selected

    @functools.cached_property
    def _by_key(self) -> dict[str, tuple[str, tfds.features.FeatureConnector]]:
        """Key -> the outermost key that must be decoded for it, and its feature; a nested key is a path."""
        return {
            key: (top, feature)
            for top, outer in self.builder.info.features.items()
            for key, feature in flatten({top: _inner(outer)}).items()
        }

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        """The features that are decoded."""
        features = self.builder.info.features
        tops = [self._by_key[key][0] for key in self.keys]
        return tfds.features.FeaturesDict({top: _whole_numbers(features[top]) for top in tops})

    @functools.cached_property
    def _records(self) -> Sequence[bytes]:
        """The undecoded examples."""
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            return self.builder.as_data_source(split=self.split, deserialize_method=raw)
        except (ValueError, KeyError) as error:
            splits = sorted(self.builder.info.splits)
            raise ValueError(f'{self.name!r} has no split {self.split!r}; it has {splits}.') from error
        except NotImplementedError as error:
            raise ValueError(
                f'{self.name!r} in {self.builder.data_dir} is not in array_record format; remove that folder and it '
                'will be prepared again, or give another data_dir.'
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.name!r} ({self.split}) has {len(self)} examples, there is no number {index}.')
        example = self._features.deserialize_example_np(self._records[int(index)])
        example = flatten({key: _decode_text(value) for key, value in example.items()})
        return {key: _stacked(example[key], self._by_key[key][1]) for key in self.keys}

    def select(self, keys: Iterable[str]) -> 'TfdsSource':
        """Returns a source that decodes these keys only.

        Raises:
          ValueError: the data set has no such key.
        """
        keys, known = tuple(keys), tuple(self._by_key)
        unknown = [key for key in keys if key not in known]
        if unknown:
            raise ValueError(f'{self.name!r} has no key {unknown[0]!r}; it has {sorted(known)}.')
        selected = dataclasses.replace(self, selected=keys)
        selected.__dict__['builder'] = self.builder
        return selected

    def class_names(self, key: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label, of a list of them or of a mask, () for another key."""
        feature = self._by_key.get(key, (key, None))[1]
        feature = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        named = isinstance(feature, tfds.features.ClassLabel | tfds.features.LabeledImage)
        return tuple(feature.names or ()) if named else ()


def _from_function(name: str, split: str, arguments: Mapping[str, Any]) -> Source:
    """Returns the source that a user's own function makes."""
    module, _, attribute = name.rpartition('.')
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f'cannot import the source {name!r}: {error}.') from error
    examples = function(split, **arguments)
    if not hasattr(examples, '__len__') or not hasattr(examples, '__getitem__'):
        raise ValueError(f'{name} must return something with len and integer indexing, got {type(examples).__name__}.')
    return examples if hasattr(examples, 'select') else SequenceSource(examples, name, split)


def _inner(feature: tfds.features.FeatureConnector) -> Any:
    """Returns the features by name where a feature, or each entry of a list of them, has several, else the feature."""
    listed = isinstance(feature, tfds.features.Sequence) and not isinstance(feature, tfds.features.Dataset)
    inside = feature.feature if listed else feature
    if not isinstance(inside, tfds.features.FeaturesDict):
        return feature
    return {name: _inner(entry) for name, entry in inside.items()}


def _whole_numbers(feature: tfds.features.FeatureConnector) -> tfds.features.FeatureConnector:
    """Returns what decodes a PNG of one channel with all of its bits, and every other feature as it is."""
    if not isinstance(feature, tfds.features.Image) or feature.encoding_format != 'png' or feature.shape[-1:] != (1,):
        return feature
    return Grey(shape=feature.shape, dtype=feature.np_dtype, encoding_format='png')


class Grey(tfds.features.Image):
    """A picture of one channel; those of 16 bits stay whole.

    TFDS declares the disparity of Cityscapes to be bytes. Its files have 16 bits, of which its own decoder, without
    TensorFlow, keeps the lower eight: noise.
    """

    def decode_example_np(self, example: bytes) -> np.ndarray:
        """Returns `[h, w, 1]`, uint8 or uint16."""
        with Image.open(io.BytesIO(example)) as image:
            if not image.mode.startswith('I'):
                return super().decode_example_np(example)
            return np.asarray(image).astype(np.uint16)[..., None]


def _stacked(value: Any, feature: tfds.features.FeatureConnector) -> Any:
    """Returns the list that TFDS makes of a sequence as one array, also where nothing is in it."""
    entry = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    numeric = isinstance(value, list) and entry.np_dtype not in (object, np.str_, np.bytes_)
    if not numeric or None in entry.shape:
        return value
    return np.asarray(value, entry.np_dtype).reshape(len(value), *entry.shape)


def _decode_text(value: Any) -> Any:
    """Returns bytes as text where they are text, and lists of bytes as lists of text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [_decode_text(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _decode_text(entry) for key, entry in value.items()}
    return value
