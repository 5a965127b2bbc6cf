"""The shapes of batches: few of them, known before the first batch, and writable as JSON."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.core.types import Batch, Ragged
from mmtl_jax.data.prepared import FieldInfo, PreparedSource
from mmtl_jax.data.preprocess import Field

# Derived lengths are rounded up to a multiple of this, so that a slightly longer text does not change every shape.
ROUND_TO = 8


@dataclasses.dataclass(frozen=True)
class FieldLayout:
    """The shape of one array of a batch.

    Attributes:
      shape: of one row; for ragged fields of one element of the sequence.
      dtype: the type in the batch.
      lengths: for ragged fields the padded length in each bucket, else None.
      picture: uint8 that is scaled to [0, 1].
    """

    shape: tuple[int, ...]
    dtype: str
    lengths: tuple[int, ...] | None = None
    picture: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shapes of all batches.

    Attributes:
      fields: path ('inputs/<modality>', 'targets/<task>', 'targets/<task>/<name>') -> shape.
      bucket_by: the path whose length decides on the bucket, None for a single bucket.
      boundaries: the longest sequence in each bucket.
    """

    fields: Mapping[str, FieldLayout]
    bucket_by: str | None = None
    boundaries: tuple[int, ...] = ()

    @property
    def num_buckets(self) -> int:
        """The number of different batch shapes."""
        return max(1, len(self.boundaries))

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            'fields': {path: dataclasses.asdict(field) for path, field in self.fields.items()},
            'bucket_by': self.bucket_by,
            'boundaries': list(self.boundaries),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> 'Layout':
        """Returns the layout that `to_json` wrote."""
        fields = {
            path: FieldLayout(
                shape=tuple(field['shape']),
                dtype=field['dtype'],
                lengths=None if field['lengths'] is None else tuple(field['lengths']),
                picture=field['picture'],
            )
            for path, field in values['fields'].items()
        }
        return cls(fields, values['bucket_by'], tuple(values['boundaries']))

    def assign(self, prepared: PreparedSource, *, training: bool) -> np.ndarray:
        """Returns the bucket of every row, `[rows]` int32; in training with room for what augmentation adds."""
        if self.bucket_by is None:
            return np.zeros(len(prepared), np.int32)
        info = prepared.info(lengths=True).get(self.bucket_by)
        if info is None:
            return np.zeros(len(prepared), np.int32)
        field = _field(prepared, self.bucket_by)
        growth = prepared.preprocess.growth(field.key) if training else 1.0
        lengths = np.minimum(np.ceil(info.lengths * growth), self.boundaries[-1])
        return np.searchsorted(self.boundaries, lengths).astype(np.int32)


def make_layout(
    prepared: PreparedSource | Sequence[PreparedSource],
    *,
    buckets: Mapping[str, Sequence[int]] | None = None,
    like: Layout | None = None,
) -> Layout:
    """Returns the shapes that hold every row.

    Args:
      prepared: one source or several that are mixed.
      buckets: one modality -> increasing lengths. Every other ragged field is padded, in each bucket, to the longest
        that a row of this bucket or a shorter one needs, rounded up to a multiple of 8.
      like: a layout made from the training split: the same buckets, and no array smaller than there, so that
        evaluation sees the shapes of training. Exclusive with `buckets`.

    Raises:
      ValueError: shapes that differ between examples, a sequence longer than allowed (the sentence names the example),
        a modality that no example has, or buckets that are not increasing lengths of one modality.
    """
    sources = [prepared] if isinstance(prepared, PreparedSource) else list(prepared)
    if not sources:
        raise ValueError('make_layout needs at least one prepared source.')
    if like is not None and buckets:
        raise ValueError('give make_layout either buckets or like, not both.')
    fields = _merge_fields(sources)
    bucket_by, boundaries = (like.bucket_by, like.boundaries) if like else _check_buckets(buckets, fields)
    layout = Layout({}, bucket_by, boundaries)
    layouts = {path: _field_layout(field, sources, layout, like) for path, field in fields.items()}
    return Layout(layouts, bucket_by, boundaries)


def empty_batch(layout: Layout, batch_size: int, bucket: int = 0) -> Batch:
    """Returns a batch of zeros in which everything is present: for the first call of a model, or to compile a bucket.

    Args:
      layout: the shapes.
      batch_size: number of rows.
      bucket: the length bucket, 0 to `layout.num_buckets - 1`.
    """
    if not 0 <= bucket < layout.num_buckets:
        raise ValueError(f'there are {layout.num_buckets} buckets, got {bucket}.')
    arrays = {path: zeros(field, batch_size, bucket) for path, field in layout.fields.items()}
    arrays = {
        path: Ragged(array, np.ones(array.shape[:2], bool)) if layout.fields[path].lengths else array
        for path, array in arrays.items()
    }
    inputs, targets = nest(arrays, 'inputs'), nest(arrays, 'targets')
    every = np.ones(batch_size, bool)
    return Batch(inputs, dict.fromkeys(inputs, every), targets, dict.fromkeys(targets, every), every)


def zeros(field: FieldLayout, batch_size: int, bucket: int) -> np.ndarray:
    """Returns the array of a field, `[batch_size, ...]`, full of zeros."""
    length = () if field.lengths is None else (field.lengths[bucket],)
    return np.zeros((batch_size, *length, *field.shape), field.dtype)


def nest(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Returns the values below `part` ('inputs' or 'targets') as a tree, one level for each '/' in their paths."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        head, *names = path.split('/')
        if head == part:
            branch = tree
            for name in names[:-1]:
                branch = branch.setdefault(name, {})
            branch[names[-1]] = value
    return tree


def _field(prepared: PreparedSource, path: str) -> Field:
    """Returns the field of a source by its path."""
    return next(field for field in prepared.preprocess.fields if field.path == path)


def _merge_fields(sources: Sequence[PreparedSource]) -> dict[str, Field]:
    """Returns the fields of all sources by path; a field that several have must be described alike."""
    fields: dict[str, Field] = {}
    for source in sources:
        for field in source.preprocess.fields:
            other = fields.setdefault(field.path, field)
            if (other.ragged, other.max_length, other.dtype) != (field.ragged, field.max_length, field.dtype):
                raise ValueError(f'{field.words} must have the same ragged, max_length and dtype in every source.')
    return fields


def _check_buckets(
    buckets: Mapping[str, Sequence[int]] | None, fields: Mapping[str, Field]
) -> tuple[str | None, tuple[int, ...]]:
    """Returns the path to bucket by and the boundaries."""
    if not buckets:
        return None, ()
    if len(buckets) != 1:
        raise ValueError(f'buckets are made by the length of one modality, got {sorted(buckets)}.')
    ((modality, boundaries),) = buckets.items()
    path, boundaries = f'inputs/{modality}', tuple(int(boundary) for boundary in boundaries)
    if path not in fields:
        names = sorted(p.split('/')[1] for p in fields if p.startswith('inputs/'))
        raise ValueError(f'buckets: there is no modality {modality!r}; choose one of {names}.')
    if not boundaries or boundaries[0] < 1 or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f'buckets: the lengths must be positive and increasing, got {boundaries}.')
    return path, boundaries


def _field_layout(field: Field, sources: Sequence[PreparedSource], layout: Layout, like: Layout | None) -> FieldLayout:
    """Returns the shape of one field."""
    ragged_unknown = field.max_length is None and field.ragged is not False
    infos = _known(field, sources, lengths=layout.bucket_by is not None or ragged_unknown)
    # A rare modality need not be among the examples that were looked at.
    infos = infos or _known(field, sources, lengths=True)
    if not infos:
        if like is not None and field.path in like.fields:
            return like.fields[field.path]
        raise ValueError(f'{field.words} is missing in every example of {sources[0].source.name!r}.')
    ragged = _is_ragged(field, [info for _, info in infos])
    (tail, ndim, dtype), name = _agreed(field, infos, ragged)
    if ragged and ndim == 0:
        raise ValueError(f'{field.words} is a single number (example {name!r}), it cannot be ragged.')
    shape = tail if ragged else infos[0][1].shapes and next(iter(infos[0][1].shapes))
    # A target of bytes in one channel is a mask of classes, not a picture.
    picture = dtype == 'uint8' and ndim == 3 and (field.is_input or shape[-1] == 3)
    whole = np.issubdtype(np.dtype(dtype), np.integer) and not picture
    dtype = field.dtype or ('int32' if whole else 'float32')
    if not ragged:
        return FieldLayout(tuple(shape), dtype, None, picture)
    lengths = _lengths(field, infos, layout)
    if like is not None and field.path in like.fields and like.fields[field.path].lengths:
        lengths = tuple(np.maximum(lengths, like.fields[field.path].lengths).tolist())
    return FieldLayout(tuple(shape), dtype, lengths, picture)


def _known(field: Field, sources: Sequence[PreparedSource], *, lengths: bool) -> list[tuple[PreparedSource, FieldInfo]]:
    """Returns the sources in which a field has values, with what is known of them."""
    infos = [(source, source.info(lengths=lengths).get(field.path)) for source in sources]
    return [(source, info) for source, info in infos if info is not None and info.kinds]


def _is_ragged(field: Field, infos: Sequence[FieldInfo]) -> bool:
    """Returns whether a field is a sequence of varying length, as told or by the rule of `Field`."""
    if field.ragged is not None:
        return field.ragged
    _, ndim, dtype = next(iter(infos[0].kinds))
    if ndim == 1 and np.dtype(dtype).kind in 'fb':
        return len({shape for info in infos for shape in info.shapes}) > 1
    return ndim in (1, 2)


def _agreed(
    field: Field, infos: Sequence[tuple[PreparedSource, FieldInfo]], ragged: bool
) -> tuple[tuple[tuple[int, ...], int, str], str]:
    """Returns the one (shape without the first dimension, dimensions, dtype) that all examples share."""
    seen: dict[Any, str] = {}
    for _, info in infos:
        for kind, name in info.kinds.items():
            seen.setdefault(kind[:2], name)
        if not ragged:
            for shape, name in info.shapes.items():
                seen.setdefault(shape, name)
    shapes = {key: name for key, name in seen.items() if ragged == (len(key) == 2 and isinstance(key[0], tuple))}
    if len(shapes) > 1:
        (first, a), (second, b) = list(shapes.items())[:2]
        hint = (
            'give it one size, for instance with resize' if not ragged else 'they must agree after the first dimension'
        )
        raise ValueError(
            f'{field.words} has different shapes: {first[0] if ragged else first} in example {a!r}, '
            f'{second[0] if ragged else second} in {b!r}; {hint}.'
        )
    return next(iter(infos[0][1].kinds.items()))


def _lengths(field: Field, infos: Sequence[tuple[PreparedSource, FieldInfo]], layout: Layout) -> tuple[int, ...]:
    """Returns the padded length of a ragged field in each bucket."""
    by_buckets = field.path == layout.bucket_by
    if by_buckets:
        for source, info in infos:
            row = int(info.lengths.argmax())
            if info.lengths[row] > layout.boundaries[-1] and not field.truncate:
                raise ValueError(
                    f'{field.words} of example {source.example_id(row)!r} has length {info.lengths[row]}, more than '
                    f"the last bucket, {layout.boundaries[-1]}; add a longer bucket, or set 'truncate': True."
                )
        return layout.boundaries
    if field.max_length is not None:
        return (field.max_length,) * layout.num_buckets
    longest = np.zeros(layout.num_buckets, np.int64)
    for source, info in infos:
        for training in (False, True):
            growth = source.preprocess.growth(field.key) if training else 1.0
            np.maximum.at(longest, layout.assign(source, training=training), np.ceil(info.lengths * growth).astype(int))
    longest = np.maximum(np.maximum.accumulate(longest), 1)
    return tuple((-(-longest // ROUND_TO) * ROUND_TO).tolist())
