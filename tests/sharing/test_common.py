"""What holds for every sharing scheme, and which tasks train which parameters."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import sharing
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Features
from tests import quick

ROWS, TOKENS, WIDTH, TASKS = 3, 4, 6, ('colour', 'count')
LENGTHS = np.array([4, 0, 2])
MAPS = ((3, 2, 5), (2, 2, 4))


def owners(path: str) -> set[str]:
    """Returns the tasks whose names stand in the path of a parameter."""
    return {task for task in TASKS if re.search(rf'(?<![a-z]){task}(?![a-z])', path)}


def own(task: str, path: str) -> bool:
    return owners(path) <= {task}


def everything(task: str, path: str) -> bool:
    return True


def along_the_chain(task: str, path: str) -> bool:
    return owners(path) <= set(TASKS[: TASKS.index(task) + 1])


def through_attention(task: str, path: str) -> bool:
    if re.search('/(query|output)_', path):
        return own(task, path)
    # A task's keys and values are for the others.
    return not (own(task, path) and re.search('/(key|value)_', path))


def through_levels(task: str, path: str) -> bool:
    return own(task, path) or 'level_0_expert' in path


# One row per scheme and variant: arguments beside tasks and width, and whether a task trains what stands at a path.
CASES = {
    'Hard': ({'depth': 1, 'dropout_rate': 0.5}, own),
    'Hard, without a trunk': ({}, own),
    'Split': ({'dropout_rate': 0.5}, own),
    'Combined': ({'dropout_rate': 0.5}, everything),
    'Hierarchical': ({'dropout_rate': 0.5}, along_the_chain),
    'TaskAttention': ({'num_heads': 2, 'dropout_rate': 0.5}, through_attention),
    'CrossStitch': ({'dropout_rate': 0.5}, everything),
    'MTAN': ({'dropout_rate': 0.5}, own),
    'MMoE': ({'num_experts': 3, 'dropout_rate': 0.5}, own),
    'CGC': ({'dropout_rate': 0.5}, own),
    'PLE': ({'dropout_rate': 0.5}, through_levels),
    'DSelectK': ({'num_experts': 3, 'dropout_rate': 0.5}, own),
    # What is read in evaluation alone gets a gradient there; tests/sharing/test_learning_to_branch.py sees to the rest.
    'LearningToBranch': ({'dropout_rate': 0.5}, None),
    'Adapters': ({'rank': 2, 'dropout_rate': 0.5}, own),
    'Adapters, FiLM': ({'kind': 'film', 'depth': 2}, own),
}


def fused(fill: float = 0.0, num_maps: int = 1, width: int = WIDTH + 1) -> Features:
    """Returns features of another width than the scheme's, with `fill` in masked tokens; row 1 is empty."""
    mask = np.arange(TOKENS)[None] < LENGTHS[:, None]
    generator = np.random.default_rng(0)
    tokens = generator.normal(size=(ROWS, TOKENS, width))
    return Features(
        tokens=np.where(mask[..., None], tokens, fill).astype(np.float32),
        mask=mask,
        maps=tuple(generator.normal(size=(ROWS, *shape)).astype(np.float32) for shape in MAPS[:num_maps]),
    )


class Case:
    """One scheme with its parameters and compiled functions, shared by the tests."""

    def __init__(self, name: str):
        arguments, self.trains = CASES[name]
        self.sharing = getattr(sharing, name.split(',')[0])(tasks=TASKS, width=WIDTH, **arguments)
        # The attention between two maps is this scheme's alone; the others treat all maps alike.
        self.fused = functools.partial(fused, num_maps=2 if name == 'MTAN' else 1)
        # These parameters go with fewer maps where a map's are its own; then there is less to compile.
        self.least = self.fused if name == 'MTAN' else functools.partial(fused, num_maps=0)
        # Biases and scales away from 0 and 1, so that a forgotten one shows.
        noise = np.random.default_rng(1)
        self.variables = jax.tree.map(
            lambda leaf: (leaf + noise.normal(scale=0.1, size=leaf.shape)).astype(leaf.dtype),
            quick.parameters(self.sharing, self.fused(), train=False),
        )
        self.traces = 0
        self._step = quick.jit(jax.grad(self._objective, argnums=(0, 1), has_aux=True, allow_int=True))
        self._train = quick.jit(self._apply_in_training)

    def _objective(self, variables, features, counts):
        """Returns the sum, weighted by `counts`, of one scalar per task that sees its streams; and the features."""
        self.traces += 1
        outputs = self.sharing.apply(variables, features, train=False)
        scalars = []
        for f in outputs.values():
            tokens = jnp.sum(jnp.where(f.mask[..., None], jnp.sin(f.tokens + 0.1), 0))
            scalars.append(tokens + sum(jnp.sum(jnp.sin(level + 0.1)) for level in f.maps))
        return jnp.dot(counts, jnp.stack(scalars)), outputs

    def _apply_in_training(self, variables, features, key):
        return self.sharing.apply(variables, features, train=True, rngs={'dropout': key})

    def step(self, features, counts=(1, 1)):
        """Returns the gradients by parameters and features, and each task's features."""
        (by_variables, by_features), outputs = self._step(self.variables, features, np.array(counts, np.float32))
        return (by_variables.get('params', {}), by_features), outputs

    def train(self, features, seed: int) -> dict[str, Features]:
        """Returns each task's features with dropout."""
        return self._train(self.variables, features, jax.random.key(seed))


case_of = functools.cache(Case)


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return case_of(request.param)


def test_every_scheme_has_a_case():
    assert {name.split(',')[0] for name in CASES} == set(sharing.__all__)


@pytest.mark.parametrize('name', sharing.__all__)
def test_a_scheme_builds_from_tasks_and_width(name):
    module = getattr(sharing, name)(tasks=TASKS, width=5)
    outputs, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), fused(), train=False))
    assert {task: features.tokens.shape[-1] for task, features in outputs.items()} == dict.fromkeys(TASKS, 5)


@pytest.mark.parametrize('name', sharing.__all__)
def test_a_scheme_takes_a_single_task(name):
    module = getattr(sharing, name)(tasks=('only',), width=WIDTH)
    outputs, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), fused(), train=False))
    assert outputs['only'].tokens.shape == (ROWS, TOKENS, WIDTH)


def test_each_task_gets_tokens_of_the_width_and_maps_like_those_of_the_fusion(case):
    _, outputs = case.step(case.fused())
    assert tuple(outputs) == tuple(sorted(TASKS))
    for features in outputs.values():
        assert features.tokens.shape == (ROWS, TOKENS, WIDTH)
        np.testing.assert_array_equal(features.mask, case.fused().mask)
        assert [level.shape for level in features.maps] == [level.shape for level in case.fused().maps]
        assert {stream.dtype for stream in (features.tokens, *features.maps)} == {np.dtype('float32')}
    assert all_finite(outputs)


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_masked_tokens_change_nothing_to_the_bit(case, fill):
    jax.tree.map(np.testing.assert_array_equal, case.step(case.fused()), case.step(case.fused(fill)))


def test_gradients_are_finite_and_reach_every_parameter_every_real_token_and_every_map(case):
    (by_parameters, by_features), _ = case.step(case.fused())
    assert all_finite((by_parameters, by_features.tokens, by_features.maps))
    for path, gradient in flatten_with_paths(by_parameters).items():
        assert case.trains is None or np.max(np.abs(gradient)) > 1e-6, path
    np.testing.assert_array_equal(np.any(by_features.tokens, axis=-1), case.fused().mask)
    for level in by_features.maps:
        assert np.any(level, axis=-1).all()


@pytest.mark.parametrize('case', [name for name in CASES if CASES[name][1]], indirect=True)
def test_a_task_trains_what_it_shares_and_nothing_else(case):
    for index, task in enumerate(TASKS):
        (by_parameters, _), _ = case.step(case.fused(), counts=np.eye(2)[index])
        gradients = flatten_with_paths({'': by_parameters})
        trained = {path for path, gradient in gradients.items() if np.any(gradient)}
        assert trained == {path for path in gradients if case.trains(task, path)}


def test_tasks_get_the_same_from_hard_sharing_only(case):
    outputs = case.step(case.fused())[1]
    for task in TASKS[1:]:
        for stream, first in zip(*(jax.tree.leaves(outputs[name]) for name in (task, TASKS[0])), strict=True):
            if stream.dtype != bool:
                assert np.array_equal(stream, first) == isinstance(case.sharing, sharing.Hard)


def test_one_compile_for_all_masks(case):
    case.step(case.fused())
    traces = case.traces
    (by_parameters, _), outputs = case.step(case.fused(np.nan).replace(mask=np.zeros((ROWS, TOKENS), bool)))
    assert all_finite((by_parameters, outputs))
    assert case.traces == traces


@pytest.mark.parametrize('case', [name for name in CASES if 'dropout_rate' in CASES[name][0]], indirect=True)
def test_dropout_acts_in_training_only_by_its_own_rng(case):
    def stacked(outputs):
        return np.stack([outputs[task].tokens for task in TASKS])

    plain = stacked(case.step(case.fused())[1])
    first, again, other = (stacked(case.train(case.least(), seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.max(np.abs(first - other)) > 1e-3
    assert np.max(np.abs(first - plain)) > 1e-3
    assert np.isfinite(first).all()


def test_bfloat16_is_near_float32_and_gradients_stay_float32(case):
    scheme = case.sharing.clone(dtype='bfloat16')

    def objective(variables):
        outputs = scheme.apply(variables, case.fused(), train=False)
        streams = jax.tree.map(jnp.float32, [(f.tokens, f.maps) for f in outputs.values()])
        return sum(jnp.sum(jnp.sin(stream + 0.1)) for stream in jax.tree.leaves(streams)), outputs

    gradients, outputs = quick.jit(jax.grad(objective, has_aux=True, allow_int=True))(case.variables)
    gradients = gradients.get('params', {})
    assert all_finite((gradients, outputs))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} <= {np.dtype('float32')}
    exact = case.step(case.fused())[1]
    for task in TASKS:
        assert outputs[task].tokens.dtype == jnp.bfloat16
        streams = jax.tree.leaves((outputs[task].tokens, outputs[task].maps))
        # bfloat16 has 8 bits, a relative 1/256 per operation on numbers around one.
        for rough, fine in zip(streams, jax.tree.leaves((exact[task].tokens, exact[task].maps)), strict=True):
            assert np.mean(np.abs(np.float32(rough) - fine)) < 0.05
        assert np.any(np.float32(outputs[task].tokens) != exact[task].tokens)


def test_train_has_no_default(case):
    with pytest.raises(TypeError, match='train'):
        case.sharing.apply(case.variables, case.fused())
