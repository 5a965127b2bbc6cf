"""The simple fusions by hand, on two modalities of width 2 whose projections are the identity."""

import numpy as np
import pytest

from mmtl_jax import fusion
from mmtl_jax.core.types import Features
from tests import quick

# Row 0 has both, row 1 lacks the text, row 2 the image, row 3 has both, row 4 neither.
IMAGE = Features(
    tokens=np.array(
        [[[1, 2], [3, 4]], [[1, 0], [9, 9]], [[9, 9], [9, 9]], [[0, 4], [0, 2]], [[9, 9], [9, 9]]], np.float32
    ),
    mask=np.array([[1, 1], [1, 0], [0, 0], [1, 1], [0, 0]], bool),
)
TEXT = Features(
    tokens=np.array([[[4, 1]], [[9, 9]], [[5, 6]], [[0, 1]], [[9, 9]]], np.float32),
    mask=np.array([[1], [0], [1], [1], [0]], bool),
)
IMAGE_MEANS = np.array([[2, 3], [1, 0], [0, 0], [0, 3], [0, 0]])
TEXT_MEANS = np.array([[4, 1], [0, 0], [5, 6], [0, 1], [0, 0]])
# float32 arithmetic on numbers below ten.
CLOSE = {'atol': 1e-5}


def fuse(name: str, **parameters) -> np.ndarray:
    """Returns the fused vectors `[B, D]`; the projections are the identity, `parameters` replace others."""
    module = getattr(fusion, name)(width=2, pooling='mean')
    features = {'image': IMAGE, 'text': TEXT}
    drawn = quick.parameters(module, features, train=False)['params']
    identity = {'kernel': np.eye(2, dtype=np.float32), 'bias': np.zeros(2, np.float32)}
    drawn |= {'project_image': identity, 'project_text': identity} | parameters
    fused = quick.jit(lambda: module.apply({'params': drawn}, features, train=False))()
    return fused.tokens[:, 0]


def test_sum():
    np.testing.assert_allclose(fuse('Sum'), IMAGE_MEANS + TEXT_MEANS, **CLOSE)


def test_mean_divides_by_the_modalities_that_are_there():
    np.testing.assert_allclose(fuse('Mean'), [[3, 2], [1, 0], [5, 6], [0, 2], [0, 0]], **CLOSE)


def test_weighted_starts_as_the_mean():
    scores = {'kernel': np.zeros((4, 2), np.float32), 'bias': np.zeros(2, np.float32)}
    np.testing.assert_allclose(fuse('Weighted', scores=scores), fuse('Mean'), **CLOSE)


def test_weighted_takes_a_softmax_over_the_modalities_that_are_there():
    # The score of the image is its first channel, that of the text log 3: in row 3, 1 to 3.
    scores = {
        'kernel': np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.float32),
        'bias': np.array([0, np.log(3)], np.float32),
    }
    image_weight = np.exp(2) / (np.exp(2) + 3)
    expected = [image_weight * IMAGE_MEANS[0] + (1 - image_weight) * TEXT_MEANS[0], [1, 0], [5, 6], [0, 1.5], [0, 0]]
    np.testing.assert_allclose(fuse('Weighted', scores=scores), expected, **CLOSE)


@pytest.mark.parametrize('row', [1, 2])
def test_concat_learns_a_vector_in_place_of_an_absent_modality(row):
    absent = {f'absent_{modality}': np.full(2, value, np.float32) for modality, value in (('image', 1), ('text', -1))}
    joint = {'kernel': np.array([[1, 0], [0, 2], [3, 0], [0, 4]], np.float32), 'bias': np.zeros(2, np.float32)}
    vectors = np.concatenate([np.where(row == 2, 1, IMAGE_MEANS[row]), np.where(row == 1, -1, TEXT_MEANS[row])])
    # GELU in the form with tanh, as linen has it.
    gelu = 0.5 * vectors * (1 + np.tanh(np.sqrt(2 / np.pi) * (vectors + 0.044715 * vectors**3)))
    y = gelu @ joint['kernel']
    expected = (y - y.mean()) / np.sqrt(y.var() + 1e-6)
    np.testing.assert_allclose(fuse('Concat', joint=joint, **absent)[row], expected, **CLOSE)


def test_concat_gives_zero_where_nothing_is_there():
    np.testing.assert_array_equal(fuse('Concat')[4], [0, 0])
