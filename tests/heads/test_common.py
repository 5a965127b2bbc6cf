"""What holds for every head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import heads
from mmtl_jax.core.tree import all_finite, flatten_with_paths
from mmtl_jax.core.types import Features

ROWS, TOKENS, WIDTH = 4, 5, 8
# Heights, widths and channels of the maps; an odd side does not halve.
MAPS = ((5, 6, 4), (3, 3, 6))
DENSE = ('DenseRegression', 'Detection', 'Keypoints', 'Segmentation')

ARGUMENTS = {
    'Classification': {'num_classes': 3, 'hidden': (6,), 'dropout_rate': 0.2},
    'MultiLabel': {'num_labels': 4, 'hidden': (6,), 'dropout_rate': 0.2},
    'Regression': {'num_outputs': 2, 'hidden': (6,), 'dropout_rate': 0.2},
    'CTC': {'vocab_size': 5, 'hidden': (6,), 'dropout_rate': 0.2},
    'Contrastive': {'width': 6, 'init_bias': -1.0, 'dropout_rate': 0.2},
    'Segmentation': {'num_classes': 3, 'width': 8, 'dropout_rate': 0.2},
    'DenseRegression': {'num_outputs': 3, 'unit': True, 'size': (10, 12), 'width': 8, 'dropout_rate': 0.2},
    'Detection': {'num_classes': 3, 'width': 8, 'dropout_rate': 0.2},
    'Keypoints': {'num_keypoints': 2, 'width': 8, 'level': 1, 'dropout_rate': 0.2},
}
PREDICTIONS = {
    'Classification': (ROWS, 3),
    'MultiLabel': (ROWS, 4),
    'Regression': (ROWS, 2),
    'CTC': {'logits': (ROWS, TOKENS, 5), 'mask': (ROWS, TOKENS)},
    'Contrastive': {
        'embeddings': {'image': (ROWS, 6), 'text': (ROWS, 6)},
        'valid': {'image': (ROWS,), 'text': (ROWS,)},
        'scale': (),
        'bias': (),
    },
    'Segmentation': (ROWS, 5, 6, 3),
    'DenseRegression': (ROWS, 10, 12, 3),
    'Detection': {'centres': (ROWS, 5, 6), 'classes': (ROWS, 5, 6, 3), 'distances': (ROWS, 5, 6, 4)},
    'Keypoints': (ROWS, 3, 3, 2),
}


def features(seed: int = 0, fill: float = 0.0) -> Features:
    """Returns tokens with a ragged mask, and maps; row 1 has no real token; masked positions hold `fill`."""
    tokens = jax.random.normal(jax.random.key(seed), (ROWS, TOKENS, WIDTH))
    mask = jnp.arange(TOKENS)[None, :] < jnp.array([5, 0, 2, 3])[:, None]
    present = jnp.any(mask, axis=1)[:, None, None, None]
    maps = (jax.random.normal(jax.random.key(seed), (ROWS, *shape)) for shape in MAPS)
    return Features(
        jnp.where(mask[..., None], tokens, fill), mask, tuple(jnp.where(present, level, fill) for level in maps)
    )


def floats_of(predictions) -> list:
    """Returns the arrays of floats among the predictions of a head."""
    return [leaf for leaf in jax.tree.leaves(predictions) if jnp.issubdtype(leaf.dtype, jnp.floating)]


class Case:
    """One head with its parameters and compiled functions, shared by the tests."""

    def __init__(self, name: str):
        self.name = name
        self.head = getattr(heads, name)(**ARGUMENTS[name])
        self.traces = 0
        self.variables = jax.jit(lambda read: self.head.init(jax.random.key(1), read, train=False))(self.inputs())
        self.apply = jax.jit(self._apply)
        self.step = jax.jit(jax.value_and_grad(self._objective, argnums=(0, 1), allow_int=True))

    def inputs(self, fill: float = 0.0):
        """Returns what the head reads."""
        image = features(0, fill)
        return {'image': image, 'text': features(1, fill)} if self.name == 'Contrastive' else image

    def _apply(self, variables, read):
        self.traces += 1
        return self.head.apply(variables, read, train=False)

    def _objective(self, variables, read, seed=0):
        """Returns a scalar that sees every prediction but those of masked tokens."""
        predictions = self.head.apply(variables, read, train=True, rngs={'dropout': jax.random.key(seed)})
        if self.name == 'CTC':
            predictions = jnp.where(predictions['mask'][..., None], predictions['logits'], 0)
        return sum(jnp.sum(jnp.sin(leaf + 0.1)) for leaf in floats_of(predictions))


@pytest.fixture(scope='module', params=heads.__all__)
def case(request) -> Case:
    return Case(request.param)


def test_predictions_have_the_documented_shapes_and_are_finite(case):
    predictions = case.apply(case.variables, case.inputs())
    assert jax.tree.map(jnp.shape, predictions) == PREDICTIONS[case.name]
    assert all_finite(predictions)


def test_one_compile_for_every_mask(case):
    case.apply(case.variables, case.inputs())
    before = case.traces
    case.apply(case.variables, jax.tree.map(jnp.ones_like, case.inputs()))
    assert case.traces == before


def test_masked_positions_change_nothing_to_the_bit(case):
    clean, dirty = case.step(case.variables, case.inputs(), 0), case.step(case.variables, case.inputs(fill=jnp.nan), 0)
    assert np.isfinite(clean[0])
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_masked_tokens_get_no_gradient(case):
    read, gradient = case.inputs(), case.step(case.variables, case.inputs(), 0)[1][1]
    if isinstance(read, Features):
        read, gradient = {'only': read}, {'only': gradient}
    for name in read:
        if case.name in DENSE:
            assert not np.any(gradient[name].tokens)
            np.testing.assert_array_equal(
                [np.any(row) for row in gradient[name].maps[-1]], np.any(read[name].mask, axis=1)
            )
        else:
            np.testing.assert_array_equal(np.any(gradient[name].tokens, axis=-1), read[name].mask)


def test_gradients_are_finite_and_reach_every_parameter(case):
    gradient = case.step(case.variables, case.inputs(), 0)[1][0]
    assert all_finite(gradient)
    assert not [path for path, leaf in flatten_with_paths(gradient).items() if not np.any(leaf)]


def test_dropout_acts_in_training(case):
    values = [case.step(case.variables, case.inputs(), seed)[0] for seed in (0, 1)]
    assert values[0] != values[1]


def test_bfloat16_is_near_float32_and_predictions_and_gradients_stay_float32(case):
    head = case.head.clone(dtype='bfloat16')

    def objective(variables):
        predictions = head.apply(variables, case.inputs(), train=False)
        floats = floats_of(predictions)
        return sum(jnp.sum(jnp.sin(leaf + 0.1)) for leaf in floats), floats

    gradients, predictions = jax.jit(jax.grad(objective, has_aux=True))(case.variables)
    assert all_finite((gradients, predictions))
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, predictions))} == {np.dtype('float32')}
    exact = floats_of(case.apply(case.variables, case.inputs()))
    # bfloat16 has 8 bits, a relative 1/256 per operation on numbers around one.
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(predictions, exact, strict=True)])
    assert 0 < np.mean(errors) < 0.05


def test_train_has_no_default(case):
    with pytest.raises(TypeError, match='train'):
        case.head.apply(case.variables, case.inputs())


@pytest.mark.parametrize('name', ['Classification', 'MultiLabel', 'Regression'])
def test_vector_heads_read_several_modalities_in_any_order(name):
    head = getattr(heads, name)(**ARGUMENTS[name] | {'dropout_rate': 0.0})
    read = {'image': features(0), 'text': features(1)}
    variables = jax.jit(lambda: head.init(jax.random.key(1), read, train=False))()
    # Not under jit, which sorts the names itself.
    forwards = head.apply(variables, read, train=False)
    backwards = head.apply(variables, dict(reversed(read.items())), train=False)
    np.testing.assert_array_equal(forwards, backwards)
    first = variables['params']['Readout_0']['MLP_0']['Dense_0']['kernel']
    assert first.shape == (2 * WIDTH, 6)


def test_ctc_refuses_several_modalities():
    with pytest.raises(ValueError, match=r"CTC reads one sequence, got the modalities \['image', 'text'\]"):
        heads.CTC(vocab_size=3).init(jax.random.key(0), {'image': features(0), 'text': features(1)}, train=False)


@pytest.mark.parametrize('name', DENSE)
def test_dense_heads_say_what_they_need(name):
    head, read = getattr(heads, name)(**ARGUMENTS[name]), features(0)
    cases = {
        rf"{name} reads one picture, got the modalities \['image'\]; name one": {'image': read},
        f"{name} needs spatial maps, but these features have none: .* such as reads='image'": read.replace(maps=()),
        f'{name}: level must be between 0 and 0, got 1': read.replace(maps=read.maps[:1]),
    }
    for sentence, given in cases.items():
        with pytest.raises(ValueError, match=sentence):
            head.clone(level=1).init(jax.random.key(0), given, train=False)
