"""Schemes against their formulas in numpy, for three tasks."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmtl_jax import sharing
from tests import quick
from tests.sharing import plain
from tests.sharing.test_common import WIDTH, fused
from tests.sharing.test_equivalences import apply, parameters_of

TASKS = ('colour', 'count', 'shape')
FORMULAS = {
    'Combined': plain.combined,
    'Hierarchical': plain.hierarchical,
    'TaskAttention': plain.task_attention,
    'CrossStitch': plain.cross_stitch,
    'MTAN': plain.mtan,
    'MMoE': plain.mmoe,
    'PLE': plain.ple,
    'Adapters': plain.adapters,
}


@pytest.mark.parametrize('name', FORMULAS)
def test_a_scheme_follows_its_formula(name):
    scheme = getattr(sharing, name)(TASKS, WIDTH)
    parameters = parameters_of(scheme)
    features = fused()
    streams = {'tokens': np.float64(features.tokens), 'map_0': np.float64(features.maps[0])}
    expected = FORMULAS[name](jax.tree.map(np.float64, parameters), streams, features.mask, TASKS)
    outputs = apply(scheme, parameters)
    for task in TASKS:
        # float32 against float64.
        tokens = expected[task]['tokens'] * features.mask[..., None]
        np.testing.assert_allclose(outputs[task].tokens, tokens, atol=1e-4)
        np.testing.assert_allclose(outputs[task].maps[0], expected[task]['map_0'], atol=1e-4)


def test_mtan_hands_the_masked_map_to_the_next_one():
    scheme, features = sharing.MTAN(('only',), WIDTH), fused(num_maps=2)
    variables = quick.parameters(scheme, features, train=False)

    @quick.jit
    def second_map(first):
        changed = features.replace(maps=(first, features.maps[1]))
        return scheme.apply(variables, changed, train=False)['only'].maps[1]

    first = features.maps[0]
    before = second_map(first)
    first = first.copy()
    first[0, 0, 0] += 1
    changed = np.any(np.abs(second_map(first) - before) > 1e-6, axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, [True, False, False])
    # What is read of a stage is at most the stage: the mask lies between 0 and 1.
    assert np.all(np.abs(before) <= np.abs(features.maps[1]))


def test_mtan_passes_the_maps_of_all_tasks_on_by_the_same_convolution():
    """The authors' code has one for all tasks, and their paper gives it no index of a task."""
    scheme, features = sharing.MTAN(TASKS, WIDTH), fused(num_maps=2)
    parameters = quick.parameters(scheme, features, noise=0.1, train=False)['params']
    outputs = quick.jit(lambda: scheme.apply({'params': parameters}, features, train=False))()
    passage, stage = parameters['passage_1'], features.maps[1]
    convolution = nn.Conv(stage.shape[-1], (3, 3), use_bias=False)
    for task in TASKS:
        convolved = np.asarray(convolution.apply({'params': passage['conv']}, outputs[task].maps[0]))
        passed = jax.image.resize(np.maximum(plain.norm(passage['norm'], convolved), 0), stage.shape, 'linear')
        expected = plain.selection(parameters[f'{task}_1'], stage, np.concatenate([stage, passed], axis=-1))
        # float32, in another order.
        np.testing.assert_allclose(outputs[task].maps[1], expected, atol=1e-5)


def test_cross_stitches_start_as_convex_combinations():
    scheme = sharing.CrossStitch(TASKS, WIDTH, own=0.8)
    start = quick.jit(lambda: scheme.init(jax.random.key(0), fused(), train=False))()['params']['stitch_0_tokens']
    assert start.shape == (3, 3, WIDTH)
    np.testing.assert_allclose(start.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(start[0, :, 0], [0.8, 0.1, 0.1], rtol=1e-6)
