"""Subsets by name, and the Shapley values of metrics of every direction."""

import pytest

from mmtl_jax import subsets, tasks
from mmtl_jax.training.evaluation import Evaluated

MODALITIES = ('image', 'my_image', 'text')


def test_all_subsets_begin_with_all_modalities_and_end_with_none():
    found = subsets.chosen_subsets('all-subsets', MODALITIES)
    assert (found[0], found[-1], len(set(found))) == (MODALITIES, (), 8)


def evaluated(**values) -> Evaluated:
    return Evaluated({name.replace('__', '/'): value for name, value in values.items()}, [0], {}, {})


def test_a_task_is_shown_where_it_has_something_to_read():
    asked = (tasks.classification('kind', num_classes=2), tasks.regression('size', reads='text'))
    found = {names: evaluated(kind__accuracy=0.5, size__mae=1.0) for names in [('image',), ('text',), ()]}
    assert subsets.primary_scores(asked, found) == {
        ('image',): {'kind': 0.5}, ('text',): {'kind': 0.5, 'size': 1.0}, (): {'kind': 0.5},
    }  # fmt: skip


def test_worth_is_above_zero_for_the_better_in_both_directions():
    asked = (tasks.classification('kind', num_classes=2), tasks.regression('size'))
    values = {(): (0.5, 2.0), ('a',): (0.7, 1.5), ('b',): (0.5, 2.0), ('a', 'b'): (0.9, 1.0)}
    found = {names: evaluated(kind__accuracy=high, size__mae=low) for names, (high, low) in values.items()}
    worth = subsets.modality_worth(asked, ('a', 'b'), found)
    assert worth['kind'] == pytest.approx({'a': 0.3, 'b': 0.1})
    assert worth['size'] == pytest.approx({'a': 0.75, 'b': 0.25})


def test_retrieval_without_two_modalities_is_chance():
    asked = (tasks.contrastive('find', modalities=('a', 'b')), tasks.contrastive('lost', modalities=('a', 'b')))
    all_values = evaluated(find__r5=0.5, find__r5_chance=0.1, lost__r5=0.5)
    found = {(): evaluated(), ('a',): evaluated(), ('b',): evaluated(), ('a', 'b'): all_values}
    assert subsets.modality_worth(asked, ('a', 'b'), found) == {'find': pytest.approx({'a': 0.2, 'b': 0.2})}
