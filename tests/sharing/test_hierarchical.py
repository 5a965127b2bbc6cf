"""Which tasks build on which, and where their gradients stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import sharing
from tests import quick
from tests.sharing.test_common import WIDTH, fused

TASKS = ('boxes', 'category', 'attributes')
DAG = {'boxes': ('category',), 'attributes': ('category', 'boxes')}


def trained_by(task: str, **arguments) -> set[str]:
    """Returns the tasks whose networks the loss of `task` trains."""
    scheme = sharing.Hierarchical(TASKS, WIDTH, **arguments)
    variables = quick.parameters(scheme, fused(num_maps=0), train=False)

    def loss(variables):
        shared = scheme.apply(variables, fused(num_maps=0), train=False)
        return jnp.sum(jnp.sin(shared[task].tokens))

    gradients = quick.jit(jax.grad(loss))(variables)['params']
    return {name for name, gradient in gradients.items() if any(np.any(leaf) for leaf in jax.tree.leaves(gradient))}


@pytest.mark.parametrize(
    ('stop_gradient', 'expected'),
    [
        (False, {'boxes', 'category', 'attributes'}),
        (True, {'attributes'}),
        # The category is still trained through the boxes, which were not told to stop.
        (('boxes',), {'category', 'attributes'}),
        # Behind the boxes, the category stops, too.
        (('category',), {'boxes', 'attributes'}),
        ('category', {'boxes', 'attributes'}),
    ],
)
def test_gradients_stop_where_they_are_told_to(stop_gradient, expected):
    assert trained_by('attributes', builds_on=DAG, stop_gradient=stop_gradient) == expected


def test_a_base_task_does_not_know_what_is_built_on_it():
    assert trained_by('category', builds_on=DAG) == {'category'}


def test_the_value_is_the_same_with_and_without_gradient():
    schemes = [sharing.Hierarchical(TASKS, WIDTH, builds_on=DAG, stop_gradient=stop) for stop in (False, True)]
    variables = quick.parameters(schemes[0], fused(), train=False)
    through, stopped = (quick.jit(lambda s=scheme: s.apply(variables, fused(), train=False))() for scheme in schemes)
    jax.tree.map(np.testing.assert_array_equal, through, stopped)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'builds_on': {'boxes': ('depth',)}}, "builds_on names 'depth', which is not among the tasks"),
        ({'builds_on': {'depth': ()}}, "builds_on names 'depth', which is not among the tasks"),
        (
            {'builds_on': {'boxes': ('category',), 'category': 'boxes'}},
            'the tasks (boxes -> category -> boxes|category -> boxes -> category) build on each other',
        ),
        ({'stop_gradient': ('depth',)}, "stop_gradient names 'depth', which is not among the tasks"),
    ],
)
def test_wrong_graphs_are_told_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        sharing.Hierarchical(TASKS, WIDTH, **arguments).init(jax.random.key(0), fused(), train=False)
