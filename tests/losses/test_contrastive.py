"""CLIP and SigLIP against plain numpy, and who may be whose candidate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import losses

ROWS, WIDTH = 6, 4
GROUP = np.array([0, 1, 0, 2, 3, 4])
EVERYONE = {'image': np.ones(ROWS, bool), 'text': np.ones(ROWS, bool)}
# Row 1 lacks the text, row 3 both, row 4 the image.
SOME = {'image': np.array([1, 1, 1, 0, 0, 1], bool), 'text': np.array([1, 0, 1, 0, 1, 1], bool)}


def predictions(valid=EVERYONE, fill: float = 0.0, seed: int = 0) -> dict:
    """Returns random unit vectors; rows that lack the modality hold `fill`."""
    generator = np.random.default_rng(seed)
    embeddings = {}
    for modality in valid:
        vectors = generator.normal(size=(ROWS, WIDTH))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        embeddings[modality] = jnp.asarray(np.where(valid[modality][:, None], vectors, fill), jnp.float32)
    return {
        'embeddings': embeddings,
        'valid': {modality: jnp.asarray(rows) for modality, rows in valid.items()},
        'scale': jnp.float32(5.0),
        'bias': jnp.float32(-2.0),
    }


def one_row(kind: str, logits: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Returns the loss of one query by the formula of the docstring."""
    if kind == 'siglip':
        signs = np.where(positive, 1.0, -1.0)
        return float(np.sum(np.log1p(np.exp(-signs * logits))[positive | negative]))
    rivals = np.sum(np.exp(logits[negative]))
    return float(np.mean([-np.log(np.exp(s) / (np.exp(s) + rivals)) for s in logits[positive]]))


def by_hand(kind: str, given: dict, group: np.ndarray) -> np.ndarray:
    """Returns the loss of each row, with loops."""
    embeddings = {modality: np.asarray(vectors, np.float64) for modality, vectors in given['embeddings'].items()}
    valid = {modality: np.asarray(rows) for modality, rows in given['valid'].items()}
    expected = np.zeros(ROWS)
    for row in range(ROWS):
        directions = []
        for asking in embeddings:
            for asked in embeddings:
                if asking == asked or not (valid[asking][row] and valid[asked][row]) or group[row] < 0:
                    continue
                logits = float(given['scale']) * embeddings[asked] @ embeddings[asking][row]
                logits = logits + (float(given['bias']) if kind == 'siglip' else 0.0)
                candidate = valid[asked] & (group >= 0)
                same = group == group[row]
                directions.append(one_row(kind, logits, same & candidate, ~same & candidate))
        expected[row] = np.mean(directions) if directions else 0.0
    return expected


def value_and_gradient(kind: str):
    def total(given, group):
        rows = getattr(losses, kind)(given, group)
        return jnp.sum(rows), rows

    return jax.jit(jax.value_and_grad(total, has_aux=True, allow_int=True))


@pytest.fixture(scope='module', params=['clip', 'siglip'])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def step(kind):
    return value_and_gradient(kind)


@pytest.mark.parametrize('valid', [EVERYONE, SOME], ids=['everyone', 'some'])
@pytest.mark.parametrize(
    'group', [np.arange(ROWS), GROUP, np.array([0, 1, 0, 2, 3, -1])], ids=['own', 'shared', 'none']
)
def test_equals_the_formula(kind, step, valid, group):
    given = predictions(valid)
    (_, rows), _ = step(given, jnp.asarray(group))
    np.testing.assert_allclose(rows, by_hand(kind, given, group), rtol=1e-5, atol=1e-6)


def test_three_modalities_average_their_six_directions(kind):
    given = predictions({**SOME, 'speech': np.array([1, 1, 0, 0, 0, 1], bool)})
    rows = getattr(losses, kind)(given, jnp.asarray(GROUP))
    np.testing.assert_allclose(rows, by_hand(kind, given, GROUP), rtol=1e-5, atol=1e-6)


def test_clip_is_the_original_without_shared_groups():
    given = predictions()
    logits = given['scale'] * given['embeddings']['image'] @ given['embeddings']['text'].T
    expected = -(jnp.diag(jax.nn.log_softmax(logits, axis=1)) + jnp.diag(jax.nn.log_softmax(logits, axis=0))) / 2
    np.testing.assert_allclose(losses.clip(given, jnp.arange(ROWS)), expected, rtol=1e-5, atol=1e-6)


def test_siglip_is_the_original_without_shared_groups():
    given = predictions()
    logits = given['scale'] * given['embeddings']['image'] @ given['embeddings']['text'].T + given['bias']
    original = -jnp.sum(jax.nn.log_sigmoid((2 * jnp.eye(ROWS) - 1) * logits)) / ROWS
    np.testing.assert_allclose(jnp.mean(losses.siglip(given, jnp.arange(ROWS))), original, rtol=1e-5)


def test_a_row_that_lacks_a_modality_changes_nothing_to_the_bit(step):
    clean, dirty = (step(predictions(SOME, fill), jnp.asarray(GROUP)) for fill in (0.0, jnp.nan))
    drop_ints = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == jnp.float32]  # noqa: E731
    assert all(np.all(np.isfinite(leaf)) for leaf in drop_ints(clean))
    for one, other in zip(drop_ints(clean), drop_ints(dirty), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_pair_at_all_gives_zero_and_no_gradient(step):
    nobody = {'image': np.ones(ROWS, bool), 'text': np.zeros(ROWS, bool)}
    (_, rows), gradient = step(predictions(nobody, jnp.nan), jnp.asarray(GROUP))
    np.testing.assert_array_equal(rows, np.zeros(ROWS))
    assert not np.any(gradient['scale'])
    assert not any(np.any(leaf) for leaf in gradient['embeddings'].values())


def test_one_group_alone_has_no_negatives(kind, step):
    (_, rows), gradient = step(predictions(), jnp.zeros(ROWS, jnp.int32))
    assert np.all(np.isfinite(gradient['embeddings']['image']))
    if kind == 'clip':
        np.testing.assert_array_equal(rows, np.zeros(ROWS))


def test_temperature_and_bias_learn(kind, step):
    _, gradient = step(predictions(), jnp.asarray(GROUP))
    assert gradient['scale'] != 0
    assert (gradient['bias'] != 0) == (kind == 'siglip')


def test_siglip_needs_a_bias():
    given = predictions()
    del given['bias']
    with pytest.raises(ValueError, match="siglip needs a 'bias'"):
        losses.siglip(given, jnp.asarray(GROUP))
