"""Arguments that a scheme cannot do with are told in one sentence."""

import jax
import pytest

from mmtl_jax import sharing
from tests.sharing.test_common import TASKS, WIDTH, fused

NO_CHOICE = 'DSelectK: needs at least 2 experts, and no more of them selected than there are, got'


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('CGC', {'num_shared': 0, 'num_own': 0}, 'CGC: a task has no expert; set num_shared or num_own to at least 1'),
        (
            'CGC',
            {'tasks': ('shared', 'count')},
            "CGC: a task cannot be called 'shared', the name of the shared experts",
        ),
        ('DSelectK', {'num_experts': 1}, NO_CHOICE),
        ('DSelectK', {'num_experts': 3, 'num_selected': 4}, NO_CHOICE),
        ('LearningToBranch', {'temperature': 0.0}, 'LearningToBranch: the temperatures must be above 0, got 0.0 and'),
        ('Adapters', {'kind': 'lora'}, r"Adapters: kind must be one of \('film', 'low_rank'\), got 'lora'"),
    ],
)
def test_what_does_not_fit_is_named(name, arguments, message):
    scheme = getattr(sharing, name)(**{'tasks': TASKS, 'width': WIDTH, **arguments})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: scheme.init(jax.random.key(0), fused(), train=False))
