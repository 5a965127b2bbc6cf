"""What data and tasks know of each other's classes: how many there are, and what they are called.

It works on a config's sections as plain values, before tasks are built.
"""

from collections.abc import Mapping
from typing import Any

from mmtl_jax.training.inputs import Inputs

# Kind of task -> how it calls the number of its classes.
SIZES = {
    'classification': 'num_classes', 'multilabel': 'num_labels', 'ctc': 'vocab_size', 'segmentation': 'num_classes',
    'detection': 'num_classes',
}  # fmt: skip
# The kinds whose classes a data set may have names for.
NAMED = ('classification', 'segmentation', 'detection')

Spec = Mapping[str, Any] | str


def name_of(spec: Spec) -> str | None:
    """Returns the name in a specification, which may be that alone."""
    return spec.get('name') if isinstance(spec, Mapping) else spec


def as_field(spec: Spec) -> dict[str, Any]:
    """Returns a field of the data as a mapping; a string is its key."""
    return {'key': spec} if isinstance(spec, str) else dict(spec)


def with_ranges(section: Mapping[str, Any], tasks: Mapping[str, Spec]) -> dict[str, Any]:
    """Returns the section `data`, in which each target whose task knows the range of its labels has it checked.

    Raises:
      ValueError: data and task disagree on the range.
    """

    def bounded(part: Mapping[str, Any]) -> dict[str, Any]:
        fields = {name: _bounded(name, tasks.get(name, {}), field) for name, field in part['targets'].items()}
        return {**part, 'targets': fields}

    sources = [
        bounded(source) if isinstance(source, Mapping) and 'targets' in source else source
        for source in section.get('sources', ())
    ]
    return {**bounded(section), 'sources': sources}


def _bounded(task: str, spec: Spec, target: Spec) -> Spec:
    """Returns a target with the range of the labels of its task."""
    kind, field = name_of(spec), _labels_of(spec, target)
    size = spec.get(SIZES.get(kind)) if isinstance(spec, Mapping) else None
    if not isinstance(size, int) or 'key' not in field:
        return target
    if kind == 'multilabel' and field.get('ragged') is not False:
        return target  # it may be a list of labels as well as a vector of 0 and 1
    if kind == 'segmentation' and field.get('kind') != 'mask':
        return target  # only what is described as a mask may be ignored in places
    if field.get('num_classes') not in (None, size):
        raise ValueError(
            f'tasks.{task}.{SIZES[kind]} is {size}, but num_classes in data.targets.{task} is {field["num_classes"]}; '
            'give both the same, or the task alone.'
        )
    field = {**field, 'num_classes': size}
    return {**target, 'labels': field} if kind == 'detection' else field


def with_classes(task: str, spec: Spec, section: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Returns the specification of a task with the number and the names of its classes, where the data knows them.

    Args:
      task: its name.
      spec: its specification; what that says itself stays.
      section: `data` of the config.
      inputs: made of that.
    """
    spec = {'name': spec} if isinstance(spec, str) else dict(spec)
    if spec.get('name') not in NAMED:
        return spec
    field = _labels_of(spec, section['targets'][task])
    key = field.get('key')
    names = inputs.class_names(key) if key is not None and not _renumbers(section, key) else ()
    size = spec.get('num_classes', field.get('num_classes', len(names)))
    found = {'num_classes': size} if size else {}
    return {**found, **({'class_names': names} if names and len(names) == size else {}), **spec}


def _labels_of(spec: Spec, target: Spec) -> dict[str, Any]:
    """Returns the field of a target that has a task's classes: where it has boxes, that of their labels."""
    field = as_field(target)
    return as_field(field.get('labels', {})) if name_of(spec) == 'detection' else field


def _renumbers(section: Mapping[str, Any], key: str) -> bool:
    """Returns whether a step gives the classes under a key other numbers than the data set has."""
    parts = [section, *(source for source in section['sources'] if isinstance(source, Mapping))]
    steps = [step for part in parts for stage in ('steps', 'augment', 'eval_steps') for step in part.get(stage, ())]
    return any(name_of(step) == 'map_labels' and key == (step.get('out') or step['key']) for step in steps)
