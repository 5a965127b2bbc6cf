"""One modality of a split under a corruption, put where the data comes in; labels and the other inputs stay clean."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.fitting import column_statistics
from mmtl_jax.data.layout import Layout
from mmtl_jax.data.prepared import PreparedSource
from mmtl_jax.data.preprocess import Field, run_steps
from mmtl_jax.data.sources import Source
from mmtl_jax.data.transforms.base import Example, Transform, is_missing

# kind of input -> short names; `image_noise` is the transform of the first.
CORRUPTIONS = {
    'image': ('noise', 'blur', 'contrast', 'rotation', 'occlusion'),
    'audio': ('snr', 'dropout', 'masks'),
    'text': ('swap', 'typos', 'deletion'),
    'table': ('dropout', 'noise'),
}
Values = dict[str, np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class CorruptInput:
    """A modality of a split under one corruption; made by `corrupt_input`.

    Attributes:
      source: of the raw examples, with the keys that the modality is made of.
      field: of the modality.
      spec: the corruption as a transform, but for its level.
      before: steps that come before it.
      after: steps that come after it.
      seed: of its random numbers; each row has its own, the same at every level.
    """

    source: Source
    field: Field
    spec: Mapping[str, Any]
    before: tuple[Callable[..., Example], ...]
    after: tuple[Callable[..., Example], ...]
    seed: int = 0

    def at(self, level: float) -> Callable[[int], Values]:
        """Returns a function from the number of a row to the corrupted input, by its path."""
        steps = (*self.before, build({**self.spec, 'level': level}, transforms), *self.after)

        def values(row: int) -> Values:
            example = run_steps(steps, self.source[row], np.random.default_rng([self.seed, row]))
            return {self.field.path: self.field.value(example)}

        return values


def corrupt_input(
    prepared: PreparedSource, layout: Layout, modality: str, corruption: str, *, seed: int = 0
) -> CorruptInput:
    """Returns a modality of a split under a corruption, which stands as early in its steps as it finds what it takes.

    Args:
      prepared: the split.
      layout: its shapes.
      modality: whose input is corrupted; the steps that lead to it are run anew, those of the targets are not.
      corruption: a short name of `CORRUPTIONS`, such as 'noise', and what the modality holds tells which is meant; the
        name of a transform, such as 'table_noise'; or the dotted path of a factory `(key, level) -> transform`.
      seed: of its random numbers.

    Raises:
      ValueError: there is no such modality or corruption, no example has the modality, or at no place is it of the kind
        that the corruption takes.
    """
    field = next((field for field in prepared.preprocess.fields if field.path == f'inputs/{modality}'), None)
    if field is None:
        names = [field.path.split('/')[1] for field in prepared.preprocess.fields if field.is_input]
        raise ValueError(f'there is no modality {modality!r} to corrupt; the inputs are {sorted(names)}.')
    ragged = layout.fields[field.path].lengths is not None
    steps = steps_to(field.key, (*prepared.preprocess.steps, *prepared.preprocess.eval_steps))
    source = prepared.source.select(_keys_of(steps, field.key, prepared.source))
    example = source[_first_with(prepared, field)]
    failures = []
    for name in corruption_names(corruption, ragged=ragged):
        for place, key in places(steps, field.key):
            value = run_steps(steps[:place], example, None).get(key)
            if is_missing(value):
                continue
            made = CorruptInput(source, field, {'name': name, 'key': key}, steps[:place], steps[place:], seed)
            try:
                run_steps([build({**made.spec, 'level': 1.0}, transforms)], {key: value}, np.random.default_rng(0))
            except ValueError as error:
                failures.append(error)
                continue
            if name == 'table_noise':
                made = dataclasses.replace(made, spec={**made.spec, 'deviation': _deviation(made, key, len(prepared))})
            return made
    raise ValueError(f'the modality {modality!r} cannot be corrupted: {failures[0]}')


def corruption_names(corruption: str, *, ragged: bool) -> list[str]:
    """Returns the transforms that a corruption's name may stand for.

    Args:
      corruption: a short name, the name of a transform, or a dotted path.
      ragged: whether the input is a sequence; a short name that sounds and tables share means that of sounds then.

    Raises:
      ValueError: nothing has that name.
    """
    if '.' in corruption or corruption in {f'{kind}_{short}' for kind, names in CORRUPTIONS.items() for short in names}:
        return [corruption]
    kinds = ('image', 'text', 'audio', 'table') if ragged else ('image', 'text', 'table', 'audio')
    found = [f'{kind}_{corruption}' for kind in kinds if corruption in CORRUPTIONS[kind]]
    if not found:
        close = difflib.get_close_matches(corruption, {short for names in CORRUPTIONS.values() for short in names}, n=1)
        listed = '; '.join(f'{kind}: {", ".join(names)}' for kind, names in CORRUPTIONS.items())
        hint = f'did you mean {close[0]!r}?' if close else f'there are {listed}.'
        raise ValueError(f'no corruption {corruption!r}; {hint}')
    return found


def steps_to(key: str, steps: Sequence[Callable[..., Example]]) -> tuple[Callable[..., Example], ...]:
    """Returns the steps on which the value of `key` depends, in their order; one that does not say so is among them."""
    chain, needed = [], {key}
    for step in reversed(steps):
        if not isinstance(step, Transform):
            chain.append(step)
        elif needed & set(step.writes):
            chain.append(step)
            needed = (needed - set(step.writes)) | set(step.reads)
    return tuple(reversed(chain))


def places(steps: Sequence[Callable[..., Example]], key: str) -> list[tuple[int, str]]:
    """Returns where in `steps` that what becomes `key` is one value: (steps before, its key there), earliest first."""
    found = [(len(steps), key)]
    for place in range(len(steps) - 1, -1, -1):
        step = steps[place]
        if isinstance(step, Transform) and key in step.writes and key not in step.reads:
            if len(step.reads) != len(step.writes):
                break  # it is made of several
            key = step.reads[step.writes.index(key)]
        found.append((place, key))
    return found[::-1]


def _keys_of(steps: Sequence[Callable[..., Example]], key: str, source: Source) -> tuple[str, ...]:
    """Returns the keys of the source that are read: all, if a step does not say which."""
    if not all(isinstance(step, Transform) for step in steps):
        return tuple(source.keys)
    needed = {key}.union(*(step.reads for step in steps))
    return tuple(name for name in source.keys if name in needed)


def _first_with(prepared: PreparedSource, field: Field) -> int:
    """Returns the number of the first row that has an input."""
    for index in range(len(prepared)):
        row = prepared.row(index)
        if row is not None and prepared.preprocess.visit(row, None)[field.path] is not None:
            return index
    raise ValueError(f'the {field.words} is missing in every example of {prepared.source.name!r}.')


def _deviation(made: CorruptInput, key: str, size: int) -> list[float]:
    """Returns the standard deviation of each column over the split, where the corruption stands."""
    rows = [run_steps(made.before, made.source[index], None).get(key) for index in range(size)]
    return column_statistics(key, [row for row in rows if not is_missing(row)])['std']
