"""From an example to the values of one row: steps, augmentation, and which key feeds which modality and task."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.kinds import KINDS, PLACED, check_kind, check_together, of_kind
from mmtl_jax.data.sources import ID_KEYS, Source
from mmtl_jax.data.transforms.base import Example, Transform, as_transform, is_missing, is_random

Row = dict[str, Any]
Draw = Callable[[np.random.Generator], Row]


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a batch and the key of the example that fills it.

    Attributes:
      path: 'inputs/<modality>' or 'targets/<task>', with '/<name>' for one of several arrays of a target.
      key: the key of the example; None for a target that says nothing: it is 0, and every row has it.
      ragged: sequences of different lengths; None infers it (ids and frames are, pictures and tables are not).
      max_length: the longest sequence; None derives it from the data.
      truncate: cut longer sequences instead of raising.
      num_classes: labels must be below it; the length of a multi-label vector.
      optional: a missing value of a target is filled with -1 or 0, and the row still counts as labelled.
      allow_nan: NaN in an input is a missing cell rather than an error.
      dtype: the type in the batch; None: whole numbers become int32, everything else float32.
      kind: what a target in the picture is: 'boxes', 'labels', 'crowd', 'mask', 'depth' or 'keypoints',
        see `mmtl_jax.data.kinds`.
    """

    path: str
    key: str | None
    ragged: bool | None = None
    max_length: int | None = None
    truncate: bool = False
    num_classes: int | None = None
    optional: bool = False
    allow_nan: bool = False
    dtype: str | None = None
    kind: str | None = None

    @property
    def is_input(self) -> bool:
        """Whether it is a modality, not a target."""
        return self.path.startswith('inputs/')

    @property
    def words(self) -> str:
        """The field as error messages call it."""
        return f'{"input" if self.is_input else "target"} {self.path.split("/", 1)[1]!r}'

    def value(self, example: Example) -> np.ndarray | None:
        """Returns the array of one row, None if it is missing.

        Raises:
          ValueError: it is not an array of numbers.
        """
        if self.key is None:
            return np.zeros((), np.float32)
        value = example.get(self.key)
        nothing_there = KINDS.get(self.kind, False) and np.size(value) == 0
        if value is None or (is_missing(value) and not nothing_there):
            return None
        array = np.asarray(value)
        if nothing_there:
            return of_kind(self.kind, np.zeros(0, np.float32))
        if array.dtype.kind not in 'biuf':
            raise ValueError(
                f'{self.words} is {type(value).__name__}, expected numbers; add a step such as characters or log_mel '
                f'that turns {self.key!r} into them.'
            )
        if self.kind is not None:
            array = of_kind(self.kind, array)
        if not self.is_input and array.dtype.kind == 'i' and (array == -1).all():
            return None
        return array[: self.max_length] if self.truncate and array.ndim else array

    def check(self, array: np.ndarray) -> None:
        """Raises a `ValueError` if the values cannot be used: NaN, a label out of range, a sequence too long."""
        if self.max_length is not None and array.ndim and len(array) > self.max_length:
            raise ValueError(
                f'{self.words} (key {self.key!r}) has length {len(array)}, more than max_length={self.max_length}; '
                "raise it, or set 'truncate': True"
            )
        if array.dtype.kind == 'f' and not np.isfinite(array).all():
            nan_only = not np.isinf(array).any()
            if not (self.is_input and self.allow_nan and nan_only):
                hint = "; set 'allow_nan': True if NaN means a missing cell" if self.is_input and nan_only else ''
                raise ValueError(f'{self.words} (key {self.key!r}) holds {"NaN" if nan_only else "inf"}{hint}')
        if self.kind is not None:
            try:
                check_kind(self.kind, array, self.num_classes)
            except ValueError as error:
                raise ValueError(f'{self.words} (key {self.key!r}) {error}') from error
        elif self.num_classes is not None:
            self._check_labels(array)

    def _check_labels(self, array: np.ndarray) -> None:
        """Raises a `ValueError` for a label out of range."""
        if array.dtype.kind == 'f' or (array.ndim == 1 and self.ragged is False):
            if array.shape != (self.num_classes,) or array.min() < 0 or array.max() > 1:
                raise ValueError(
                    f'{self.words} (key {self.key!r}) must be {self.num_classes} numbers from 0 to 1, got {array!r}'
                )
            return
        low = 1 if array.ndim else 0
        if array.min() < low or array.max() >= self.num_classes:
            wrong = array.min() if array.min() < low else array.max()
            raise ValueError(
                f'{self.words} (key {self.key!r}) is {int(wrong)}, expected {low} to {self.num_classes - 1} '
                f'(num_classes={self.num_classes})'
            )


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """What happens to an example; see `build_preprocess`.

    Attributes:
      fields: the arrays of a batch.
      steps: deterministic transforms, run once per example.
      augment: transforms of training, run on every visit.
      eval_steps: transforms of evaluation, run on every visit.
    """

    fields: tuple[Field, ...]
    steps: tuple[Callable[..., Example], ...] = ()
    augment: tuple[Callable[..., Example], ...] = ()
    eval_steps: tuple[Callable[..., Example], ...] = ()

    def keys_to_read(self, source: Source) -> tuple[str, ...]:
        """Returns the keys of the source that are needed: all, if a transform does not say what it reads."""
        every = (*self.steps, *self.augment, *self.eval_steps)
        if not all(isinstance(step, Transform) for step in every):
            return tuple(source.keys)
        needed = {*ID_KEYS, *(field.key for field in self.fields)}.union(*(step.reads for step in every))
        return tuple(key for key in source.keys if key in needed)

    def growth(self, key: str) -> float:
        """Returns how many times longer the augmentation can make the sequence under `key`."""
        steps = [step for step in self.augment if isinstance(step, Transform) and key in step.writes]
        return float(np.prod([step.growth for step in steps]))

    def prepare(self, example: Example) -> Row:
        """Returns the example after `steps`, with only what visits need."""
        example = run_steps(self.steps, example, None)
        later = (*self.augment, *self.eval_steps)
        if not all(isinstance(step, Transform) for step in later):
            return dict(example)
        kept = {field.key for field in self.fields}.union(*(step.reads for step in later))
        # A view of a larger array would keep all of it in memory.
        return {key: _own(value) for key, value in example.items() if key in kept}

    def visit(
        self, row: Row, rng: np.random.Generator | None, draw: Draw | None = None
    ) -> dict[str, np.ndarray | None]:
        """Returns the values of a row by their field's path: augmented with `rng`, or after `eval_steps` without.

        `draw` gives further rows of the same source to those transforms that put several into one.
        """
        example = run_steps(self.eval_steps, row, None) if rng is None else run_steps(self.augment, row, rng, draw)
        return {field.path: field.value(example) for field in self.fields}

    def check(self, values: Mapping[str, np.ndarray | None]) -> None:
        """Checks the values of a row, as `visit` returns them, each alone and those that must fit each other.

        Raises:
          ValueError: they cannot be used.
        """
        for field in self.fields:
            if values[field.path] is not None:
                field.check(values[field.path])
        kinds = {field.path: field.kind for field in self.fields if field.kind is not None}
        inputs = {field.path: values[field.path] for field in self.fields if field.is_input}
        pictures = {path: value for path, value in inputs.items() if value is not None and _is_picture(value)}
        check_together(kinds, values, pictures)

    def check_keys(self, source: Source) -> None:
        """Raises a `ValueError` if a transform or a field reads a key that neither the source nor a step provides."""
        known: set[str] = set(source.keys)
        for steps in (self.steps, self.augment, self.eval_steps):
            available = set(known)
            for step in steps:
                if not isinstance(step, Transform):
                    return
                for key in step.reads:
                    _check_key(key, available, f'the transform {step.name!r}', source)
                available = (set() if step.name == 'select' else available) | set(step.writes)
            if steps is self.steps:
                known = available
        known = known.union(*(step.writes for step in (*self.augment, *self.eval_steps)))
        for field in self.fields:
            if field.key is not None:
                _check_key(field.key, known, f'the {field.words}', source)


def build_preprocess(
    *,
    inputs: Mapping[str, Any],
    targets: Mapping[str, Any],
    steps: Sequence[Any] = (),
    augment: Sequence[Any] = (),
    eval_steps: Sequence[Any] = (),
    vocabularies: Mapping[str, Any] | None = None,
) -> Preprocess:
    """Builds a `Preprocess` from plain values.

    Args:
      inputs: modality -> key, or a mapping with 'key' and attributes of `Field`.
      targets: task -> key, a mapping with 'key', a mapping of such for a target of several arrays, or an empty mapping
        for a task that learns without labels.
      steps: transform specs, run once per example; deterministic, their results are cached.
      augment: transform specs of training, run on every visit; random or not.
      eval_steps: transform specs of evaluation, run on every visit: the deterministic counterpart of `augment`, such
        as a centre crop for a random crop. Mostly empty.
      vocabularies: what was fitted on the training split; a spec refers to an entry by its name under 'vocabulary' or
        'statistics'.

    Raises:
      ValueError: an unknown transform, an unknown vocabulary, or a random transform outside `augment`.
    """
    built = {
        stage: tuple(_build_transform(spec, vocabularies or {}, stage) for spec in specs)
        for stage, specs in (('steps', steps), ('augment', augment), ('eval_steps', eval_steps))
    }
    fields = [*_fields('inputs', inputs), *_fields('targets', targets)]
    if not inputs:
        raise ValueError('inputs is empty: name at least one modality and the key that feeds it.')
    for later in ('augment', 'eval_steps'):
        _check_moves((*built['steps'], *built[later]), [field for field in fields if field.kind in PLACED])
        _check_partners((*built['steps'], *built[later]), [field for field in fields if not field.is_input])
    return Preprocess(fields=tuple(fields), **built)


def _check_moves(steps: Sequence[Callable[..., Example]], placed: Sequence[Field]) -> None:
    """Raises a `ValueError` if a step moves a picture and leaves behind a target that lies in it."""
    for place, step in enumerate(steps):
        if not isinstance(step, Transform) or not step.moves:
            continue
        for field in placed:
            # What is only made later, with the picture or of what was moved with it, has nothing to be moved.
            made_later = any(
                isinstance(later, Transform)
                and field.key in set(later.writes) - set(later.reads)
                and {*later.writes, *later.reads} & set(step.writes)
                for later in steps[place + 1 :]
            )
            if field.key not in step.writes and not made_later:
                raise ValueError(
                    f'{step.name!r} moves the picture and leaves the {field.words} (key {field.key!r}) where it was; '
                    'name that key among the layers of resize_with_padding, random_spatial, random_spatial_crop or '
                    'mosaic, and use them in place of the steps that move a picture alone.'
                )


def _check_partners(steps: Sequence[Callable[..., Example]], targets: Sequence[Field]) -> None:
    """Raises a `ValueError` if a target describes one of several examples that a step puts into one."""
    for place, step in enumerate(steps):
        if not isinstance(step, Transform) or not step.partners:
            continue
        known = set(step.writes).union(*(later.writes for later in steps[place + 1 :] if isinstance(later, Transform)))
        for field in targets:
            if field.key is not None and field.key not in known:
                raise ValueError(
                    f'{step.name!r} puts several examples into one, and the {field.words} (key {field.key!r}) is that '
                    'of one of them; name that key under forget, so that it is missing there, or make it anew after it.'
                )


def _fields(path: str, specs: Mapping[str, Any]) -> Iterable[Field]:
    """Yields the fields below `path`."""
    for name, spec in specs.items():
        if '/' in name:
            raise ValueError(f'a modality or task cannot have "/" in its name, got {name!r}.')
        if isinstance(spec, str):
            yield _field(f'{path}/{name}', {'key': spec})
        elif isinstance(spec, Mapping) and isinstance(spec.get('key'), str) and set(spec) <= FIELD_OPTIONS:
            yield _field(f'{path}/{name}', spec)
        elif isinstance(spec, Mapping) and not spec and path == 'targets':
            yield Field(f'{path}/{name}', None)
        elif isinstance(spec, Mapping) and 'key' not in spec and path != 'inputs' and spec:
            yield from _fields(f'{path}/{name}', spec)
        else:
            raise ValueError(
                f"{path} {name!r}: expected a key or a mapping with 'key' and any of "
                f'{sorted(FIELD_OPTIONS - {"key"})}, got {spec!r}.'
            )


def _field(path: str, spec: Mapping[str, Any]) -> Field:
    """Returns one field; the boxes and labels of a target of several arrays are of the kind that their name says."""
    name, depth = path.rpartition('/')[2], path.count('/')
    kind = spec.get('kind', name if depth > 1 and name in NAMED_KINDS else None)
    if kind is None:
        return Field(path, **spec)
    if kind not in KINDS or path.startswith('inputs/'):
        raise ValueError(f'{path}: kind must be one of {list(KINDS)}, and only targets have one, got {kind!r}.')
    flags = {'dtype': 'bool'} if kind == 'crowd' else {}
    return Field(path, **{'ragged': KINDS[kind], **flags, **spec, 'kind': kind})


NAMED_KINDS = ('boxes', 'labels', 'crowd', 'keypoints')
FIELD_OPTIONS = {field.name for field in dataclasses.fields(Field)} - {'path'}


def _build_transform(spec: Any, vocabularies: Mapping[str, Any], stage: str) -> Callable[..., Example]:
    """Returns one transform, with the names of fitted values replaced by the values."""
    arguments = {'name': spec} if isinstance(spec, str) else dict(spec)
    for argument in ('vocabulary', 'statistics'):
        name = arguments.get(argument)
        if isinstance(name, str):
            if name not in vocabularies:
                raise ValueError(
                    f'{arguments.get("name")}: {argument} {name!r} has not been fitted; there are '
                    f'{sorted(vocabularies)}. Add it to what fit_vocabularies fits.'
                )
            arguments[argument] = vocabularies[name]
    transform = as_transform(build(arguments, transforms), str(arguments.get('name')))
    if stage != 'augment' and is_random(transform):
        raise ValueError(
            f'{arguments.get("name")!r} draws random numbers, so it belongs under augment; {stage} must give the same '
            'result on every visit.'
        )
    return transform


def run_steps(
    steps: Sequence[Callable[..., Example]],
    example: Example,
    rng: np.random.Generator | None,
    draw: Draw | None = None,
) -> Example:
    """Returns the example after all steps; an error says which step failed."""
    for step in steps:
        try:
            if isinstance(step, Transform) and step.partners:
                example = step(example, rng, draw)
            else:
                example = step(example, rng) if is_random(step) else step(example)
        except ValueError as error:
            raise ValueError(f'{error}') from error
        except Exception as error:
            name = getattr(step, 'name', getattr(step, '__name__', 'transform'))
            raise ValueError(f'the transform {name!r} failed: {type(error).__name__}: {error}') from error
    return example


def _check_key(key: str, known: set[str], reader: str, source: Source) -> None:
    """Raises a `ValueError` if nothing provides `key`."""
    if key in known:
        return
    close = difflib.get_close_matches(key, known, n=1)
    hint = f'did you mean {close[0]!r}?' if close else f'there are {sorted(known)}.'
    raise ValueError(f'{reader} reads the key {key!r}, which no example of {source.name!r} has; {hint}')


def _is_picture(value: np.ndarray) -> bool:
    """Returns whether an input has height, width and 1 or 3 channels."""
    return value.ndim == 3 and value.shape[2] in (1, 3)


def _own(value: Any) -> Any:
    """Returns an array that holds no more memory than it shows."""
    if isinstance(value, np.ndarray) and value.base is not None:
        return np.array(value)
    return value
