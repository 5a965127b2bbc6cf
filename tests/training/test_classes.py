"""The classes of data and tasks: who tells whom how many there are, and what they are called."""

import types

import pytest

from mmtl_jax.training.classes import with_classes, with_ranges

NAMES = {'label': ('ant', 'bee'), 'mask': ('background', 'ant', 'bee'), 'objects/label': ('ant', 'bee')}
INPUTS = types.SimpleNamespace(class_names=lambda key: NAMES.get(key, ()))
TARGETS = {
    'kind': 'label',
    'ground': {'key': 'mask', 'kind': 'mask'},
    'objects': {'boxes': 'objects/bbox', 'labels': 'objects/label'},
    'other': {'key': 'unknown', 'num_classes': 5},
}
SECTION = {'sources': ({'name': 'a'}, {'name': 'b', 'targets': TARGETS}), 'targets': TARGETS}


@pytest.mark.parametrize(
    ('task', 'spec', 'size', 'names'),
    [
        ('kind', 'classification', 2, NAMES['label']),
        ('kind', {'name': 'classification', 'num_classes': 3}, 3, None),
        ('kind', {'name': 'classification', 'class_names': ('x', 'y')}, 2, ('x', 'y')),
        ('ground', {'name': 'segmentation'}, 3, NAMES['mask']),
        ('objects', {'name': 'detection', 'num_classes': 2}, 2, NAMES['objects/label']),
        ('objects', {'name': 'detection'}, 2, NAMES['objects/label']),
        ('other', {'name': 'segmentation'}, 5, None),
        ('kind', {'name': 'multilabel'}, None, None),
    ],
)
def test_a_task_learns_its_classes_from_the_data(task, spec, size, names):
    found = with_classes(task, spec, SECTION, INPUTS)
    assert (found.get('num_classes'), found.get('class_names')) == (size, names)
    assert found['name'] == (spec if isinstance(spec, str) else spec['name'])


@pytest.mark.parametrize(('step', 'named'), [({}, False), ({'out': 'mask'}, False), ({'out': 'ground'}, True)])
def test_classes_with_other_numbers_have_other_names(step, named):
    step = {'name': 'map_labels', 'key': 'mask', 'values': (0, 2), **step}
    for section in ({**SECTION, 'steps': (step,)}, {**SECTION, 'sources': ({'name': 'a', 'augment': (step,)},)}):
        found = with_classes('ground', {'name': 'segmentation', 'num_classes': 3}, section, INPUTS)
        assert ('class_names' in found) == named


def test_the_data_checks_the_range_of_what_its_tasks_know():
    tasks = {
        'kind': {'name': 'classification', 'num_classes': 2},
        'ground': {'name': 'segmentation', 'num_classes': 3},
        'objects': {'name': 'detection', 'num_classes': 4},
        'other': {'name': 'segmentation', 'num_classes': 9},
    }
    found = with_ranges(SECTION, tasks)
    assert found['targets'] == {
        'kind': {'key': 'label', 'num_classes': 2},
        'ground': {'key': 'mask', 'kind': 'mask', 'num_classes': 3},
        'objects': {'boxes': 'objects/bbox', 'labels': {'key': 'objects/label', 'num_classes': 4}},
        'other': TARGETS['other'],
    }
    assert found['sources'] == [{'name': 'a'}, {'name': 'b', 'targets': found['targets']}]


def test_data_and_tasks_must_agree():
    section = {'targets': {'objects': {'boxes': 'b', 'labels': {'key': 'l', 'num_classes': 3}}}}
    with pytest.raises(ValueError, match=r'num_classes is 4, but num_classes in data.targets.objects is 3; give'):
        with_ranges(section, {'objects': {'name': 'detection', 'num_classes': 4}})
