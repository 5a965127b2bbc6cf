"""The value by which checkpoints are compared, and its direction."""

import pytest

from mmtl_jax import tasks
from mmtl_jax.training.selection import higher_is_better, selection_value

TASKS = (
    tasks.classification('kind', num_classes=3),
    tasks.regression('size'),
    tasks.ctc('words', vocabulary=('a', 'b')),
)
VALUES = {'kind/accuracy': 0.75, 'kind/loss': 0.5, 'size/mae': 0.5, 'words/cer': 0.25}


def test_a_named_metric_is_taken_as_it_is():
    assert selection_value(VALUES, TASKS, 'size/mae') == 0.5


def test_primary_is_the_mean_of_the_primaries_where_lower_counts_as_one_minus_it():
    assert selection_value(VALUES, TASKS, 'primary') == pytest.approx((0.75 + 0.5 + 0.75) / 3)


def test_a_task_that_has_no_value_is_left_out_of_primary():
    values = {name: value for name, value in VALUES.items() if not name.startswith('size')}
    assert selection_value(values, TASKS, 'primary') == pytest.approx((0.75 + 0.75) / 2)


@pytest.mark.parametrize(
    ('metric', 'higher'),
    [
        ('primary', True),
        ('kind/accuracy', True),
        ('kind/loss', False),
        ('kind/ece', False),
        ('size/mae', False),
        ('size/mse', False),
        ('words/cer', False),
    ],
)
def test_direction(metric, higher):
    assert higher_is_better(metric, TASKS) is higher


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"best_metric is 'kind/f1', but an evaluation gives \['kind/accuracy', "):
        selection_value(VALUES, TASKS, 'kind/f1')
    with pytest.raises(ValueError, match=r"no task has its primary metric .*, which gave \['kind/loss'\]"):
        selection_value({'kind/loss': 0.5}, TASKS, 'primary')
    with pytest.raises(ValueError, match=r"is 'knid/accuracy'; give 'primary' or '<task>/<metric>', task of \['kind'"):
        higher_is_better('knid/accuracy', TASKS)
