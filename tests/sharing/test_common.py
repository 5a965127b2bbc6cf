"""What holds for every sharing scheme, and how much each of them shares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import sharing
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Features
from tests import quick

ROWS, TOKENS, WIDTH, TASKS = 3, 4, 6, ('colour', 'count', 'shape')
LENGTHS = np.array([4, 0, 2])

# One row per scheme and variant: arguments beside tasks and width, and the parameters that only one task has.
CASES = {
    'Hard': ({'depth': 1, 'dropout_rate': 0.5}, ()),
    'Hard, without a trunk': ({}, ()),
    'Split': ({'dropout_rate': 0.5}, TASKS),
}


def fused(fill: float = 0.0, width: int = WIDTH + 1) -> Features:
    """Returns features of another width than the scheme's, with `fill` in masked tokens; row 1 is empty."""
    mask = np.arange(TOKENS)[None] < LENGTHS[:, None]
    tokens = np.random.default_rng(0).normal(size=(ROWS, TOKENS, width))
    return Features(
        tokens=np.where(mask[..., None], tokens, fill).astype(np.float32),
        mask=mask,
        maps=(np.ones((ROWS, 2, 2, 1), np.float32),),
    )


class Case:
    """One scheme with its parameters and compiled functions, shared by the tests."""

    def __init__(self, name: str):
        arguments, self.private = CASES[name]
        self.sharing = getattr(sharing, name.split(',')[0])(tasks=TASKS, width=WIDTH, **arguments)
        self.variables = quick.parameters(self.sharing, fused(), train=False)
        self.traces = 0
        self._step = quick.jit(jax.grad(self._objective, argnums=(0, 1), has_aux=True, allow_int=True))
        self._train = quick.jit(self._apply_in_training)

    def _objective(self, variables, features, counts):
        """Returns the sum, weighted by `counts`, of one scalar per task that sees its real tokens; and the features."""
        self.traces += 1
        outputs = self.sharing.apply(variables, features, train=False)
        scalars = [jnp.sum(jnp.where(f.mask[..., None], jnp.sin(f.tokens + 0.1), 0)) for f in outputs.values()]
        return jnp.dot(counts, jnp.stack(scalars)), outputs

    def _apply_in_training(self, variables, features, key):
        return self.sharing.apply(variables, features, train=True, rngs={'dropout': key})

    def step(self, features, counts=(1, 1, 1)):
        """Returns the gradients by variables and features, and each task's features."""
        return self._step(self.variables, features, np.array(counts, np.float32))

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


def test_each_task_gets_features_of_the_width_with_the_mask_and_maps_of_the_fusion(case):
    _, outputs = case.step(fused())
    assert set(outputs) == set(TASKS)
    for features in outputs.values():
        assert features.tokens.shape == (ROWS, TOKENS, WIDTH)
        assert features.tokens.dtype == jnp.float32
        jax.tree.map(np.testing.assert_array_equal, (features.mask, features.maps), (fused().mask, fused().maps))
    assert all_finite(outputs)


@pytest.mark.parametrize('fill', [np.nan, np.inf])
def test_masked_tokens_change_nothing_to_the_bit(case, fill):
    jax.tree.map(np.testing.assert_array_equal, case.step(fused()), case.step(fused(fill)))


def test_gradients_are_finite_and_reach_every_parameter_and_every_real_token(case):
    (by_variables, by_features), _ = case.step(fused())
    for path, gradient in flatten_with_paths(by_variables).items():
        assert np.isfinite(gradient).all(), path
        assert np.max(np.abs(gradient)) > 1e-6, path
    assert np.isfinite(by_features.tokens).all()
    np.testing.assert_array_equal(np.any(by_features.tokens, axis=-1), fused().mask)


def test_a_task_touches_no_private_parameters_of_another(case):
    for index, task in enumerate(TASKS):
        (by_variables, _), _ = case.step(fused(), counts=np.eye(3)[index])
        touched = {path.split('/')[1] for path, leaf in flatten_with_paths(by_variables).items() if np.any(leaf)}
        others = set(case.private) - {task}
        assert touched == set(case.variables['params']) - others


def test_tasks_share_unless_they_have_private_parameters(case):
    outputs = case.step(fused())[1]
    for task in TASKS[1:]:
        same = np.array_equal(outputs[task].tokens, outputs[TASKS[0]].tokens)
        assert same == (not case.private)


def test_one_compile_for_all_masks(case):
    case.step(fused())
    traces = case.traces
    (by_variables, _), outputs = case.step(fused(np.nan).replace(mask=np.zeros((ROWS, TOKENS), bool)))
    assert all_finite((by_variables, outputs))
    assert case.traces == traces


@pytest.mark.parametrize('case', [name for name in CASES if 'dropout_rate' in CASES[name][0]], indirect=True)
def test_dropout_acts_in_training_only_by_its_own_rng(case):
    def stacked(outputs):
        return np.stack([outputs[task].tokens for task in TASKS])

    plain = stacked(case.step(fused())[1])
    first, again, other = (stacked(case.train(fused(), seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.max(np.abs(first - other)) > 1e-3
    assert np.max(np.abs(first - plain)) > 1e-3
    assert np.isfinite(first).all()


def test_train_has_no_default(case):
    with pytest.raises(TypeError, match='train'):
        case.sharing.apply(case.variables, fused())


def test_hard_sharing_hands_on_what_has_the_width_already():
    features = fused(width=WIDTH)
    outputs, variables = sharing.Hard(TASKS, WIDTH).init_with_output(jax.random.key(0), features, train=False)
    assert not variables
    np.testing.assert_array_equal(outputs['count'].tokens, features.tokens)


def test_a_task_of_split_gives_the_same_whoever_else_is_there():
    case = case_of('Split')
    alone = sharing.Split(tasks=('count',), width=WIDTH)
    outputs = quick.jit(lambda: alone.apply(case.variables, fused(), train=False))()
    # A program without the others may fuse its sums in another order.
    np.testing.assert_allclose(outputs['count'].tokens, case.step(fused())[1]['count'].tokens, atol=1e-5)


def test_split_takes_any_names_of_tasks():
    names = ('depth', 'depth_norm', 'width')
    variables = quick.parameters(sharing.Split(tasks=names, width=WIDTH), fused(), train=False)
    assert set(variables['params']) == set(names)
