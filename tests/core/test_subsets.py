"""Subsets of names: their order, and the names that stand for them."""

import pytest

from mmtl_jax.core.subsets import parse_subset, subsets_of

NAMES = ('image', 'my_image', 'text')


def test_subsets_come_in_order_of_size():
    assert list(subsets_of(('b', 'a'))) == [(), ('b',), ('a',), ('b', 'a')]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('image', ('image',)),
        ('my_image', ('my_image',)),
        ('text_image', ('image', 'text')),
        ('my_image_image', ('image', 'my_image')),
        ('image_my_image_text', NAMES),
        ('image_image', None),
        ('image_', None),
        ('my', None),
        ('', None),
    ],
)
def test_a_subset_by_name(text, expected):
    assert parse_subset(text, NAMES) == expected
