"""Draws in training, the best branch in evaluation, and a temperature that falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import sharing
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.sharing.learning_to_branch import annealed
from tests import quick
from tests.sharing.test_common import WIDTH, fused

TASKS = ('colour', 'count', 'shape')
SCHEME = sharing.LearningToBranch(TASKS, WIDTH)
FEATURES = fused(num_maps=0)
DRAWS = 64


@pytest.fixture(scope='module')
def variables():
    return quick.parameters(SCHEME, FEATURES, train=False)


@pytest.fixture(scope='module')
def drawn():
    """Returns a function of variables that gives the mean gradient and the tokens of all draws."""

    def objective(parameters, rest, key):
        outputs = SCHEME.apply({**rest, 'params': parameters}, FEATURES, train=True, rngs={'dropout': key})
        tokens = jnp.stack([outputs[task].tokens for task in TASKS])
        return jnp.sum(jnp.sin(tokens + 0.1)), tokens

    @quick.jit
    def draw(variables):
        rest = {name: part for name, part in variables.items() if name != 'params'}
        keys = jax.random.split(jax.random.key(0), DRAWS)
        step = jax.vmap(jax.grad(objective, has_aux=True), in_axes=(None, None, 0))
        gradients, tokens = step(variables['params'], rest, keys)
        return jax.tree.map(lambda leaf: jnp.mean(jnp.abs(leaf), axis=0), gradients), tokens

    return draw


def with_scores(variables, scores):
    return {**variables, 'params': {**variables['params'], 'branching_1': jnp.asarray(scores, jnp.float32)}}


def read_nodes(variables) -> np.ndarray:
    """Returns the tokens `[3, 3, ...]` of every last node for every node that it may read, in evaluation."""

    @quick.jit
    def choose(scores):
        outputs = SCHEME.apply(with_scores(variables, scores), FEATURES, train=False)
        return jnp.stack([outputs[task].tokens for task in TASKS])

    return np.stack([choose(np.eye(3)[[node] * 3]) for node in range(3)], axis=1)


def test_evaluation_reads_the_best_node_and_draws_nothing(variables):
    scores = [[0.0, 0.2, 0.1], [3.0, 2.0, 1.0], [-1.0, -2.0, -0.5]]
    # No random key: a draw would be an error.
    outputs = quick.jit(lambda: SCHEME.apply(with_scores(variables, scores), FEATURES, train=False))()
    choices = read_nodes(variables)
    for task, node in zip(range(3), (1, 0, 2), strict=True):
        np.testing.assert_allclose(outputs[TASKS[task]].tokens, choices[task, node], atol=1e-5)


def test_training_draws_one_node_with_the_probabilities_of_the_scores(variables, drawn):
    scores = np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])
    _, tokens = drawn(with_scores(variables, scores))
    choices = read_nodes(variables)
    # What is read is one node, not a mixture.
    distance = np.abs(tokens[:, :, None] - choices[None]).max(axis=(3, 4, 5))
    assert np.all(distance.min(axis=-1) < 1e-5)
    shares = np.mean(distance.argmin(axis=-1)[..., None] == np.arange(3), axis=0)
    # Three standard deviations of a share of 64 draws.
    assert np.all(np.abs(shares - np.exp(scores)) < 3 * np.sqrt(0.25 / DRAWS))


def test_gradients_reach_every_node_and_every_score(variables, drawn):
    gradients, _ = drawn(with_scores(variables, np.zeros((3, 3))))
    for path, gradient in flatten_with_paths(gradients).items():
        assert np.all(np.isfinite(gradient)), path
        if path == 'branching_1':
            assert np.all(gradient > 0)
        else:
            assert np.any(gradient > 1e-6), path


def test_the_temperature_falls_with_the_passes_in_training():
    temperatures = [float(annealed(4.0, 1.0, jnp.asarray(passes / 4))) for passes in (0, 2, 4, 9)]
    np.testing.assert_allclose(temperatures, [4, 2, 1, 1], rtol=1e-6)


def test_passes_in_training_are_counted():
    scheme = sharing.LearningToBranch(('only',), 4, depth=1)
    variables = quick.parameters(scheme, FEATURES, train=False)
    assert variables['annealing'] == {'passes': 0}
    passes = quick.jit(lambda v: scheme.apply(v, FEATURES, train=True, mutable=['annealing'])[1]['annealing']['passes'])
    assert passes(variables) == 1
    assert passes({**variables, 'annealing': {'passes': 7}}) == 8
