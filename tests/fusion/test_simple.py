"""The simple fusions by hand, on two modalities of width 2 whose projections are the identity."""

import jax
import numpy as np
import pytest

from mmtl_jax import fusion
from mmtl_jax.core.types import Features
from tests import quick
from tests.fusion.by_hand import check_vectors, features_of
from tests.nn import plain

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


def fuse(name: str, width: int = 2, **parameters) -> np.ndarray:
    """Returns the fused vectors `[B, D]`; projections are the identity, and `parameters` replace others."""
    module = getattr(fusion, name)(width=width, pooling='mean')
    features = {'image': IMAGE, 'text': TEXT}
    drawn = quick.parameters(module, features, train=False)['params']
    identity = {'kernel': np.eye(2, width, dtype=np.float32), 'bias': np.zeros(width, np.float32)}
    drawn |= {'project_image': identity, 'project_text': identity} | parameters
    fused = quick.jit(lambda: module.apply({'params': drawn}, features, train=False))()
    return fused.tokens[:, 0]


def test_sum():
    np.testing.assert_allclose(fuse('Sum'), IMAGE_MEANS + TEXT_MEANS, **CLOSE)


def test_mean_divides_by_the_modalities_that_are_there():
    np.testing.assert_allclose(fuse('Mean'), [[3, 2], [1, 0], [5, 6], [0, 2], [0, 0]], **CLOSE)


def test_weighted_starts_as_the_mean():
    features = {'image': IMAGE, 'text': TEXT}
    initial = quick.jit(lambda key: fusion.Weighted(width=2).init(key, features, train=False))(jax.random.key(0))
    np.testing.assert_allclose(fuse('Weighted', scores=initial['params']['scores']), fuse('Mean'), **CLOSE)


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
    absent = np.array([1, -1, 2], np.float32)
    vectors = {'image': np.append(IMAGE_MEANS[row], 0), 'text': np.append(TEXT_MEANS[row], 0)}
    vectors['text' if row == 1 else 'image'] = absent
    joint = {'kernel': np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), 'bias': np.zeros(3, np.float32)}
    fused = fuse('Concat', width=3, joint=joint, absent_image=absent, absent_text=absent)
    y = plain.gelu(np.concatenate([vectors['image'], vectors['text']])) @ joint['kernel']
    np.testing.assert_allclose(fused[row], plain.layer_norm({'scale': 1, 'bias': 0}, y), **CLOSE)
    np.testing.assert_array_equal(fused[4], 0)


def test_a_learned_vector_counts_like_a_modality_that_is_there():
    def formula(p, h):
        return np.mean(
            [
                plain.dense(p[f'project_{modality}'], h[modality]) if modality in h else p[f'absent_{modality}']
                for modality in ('audio', 'image', 'text')
            ],
            axis=0,
        )

    check_vectors(fusion.Mean(width=4, pooling='mean', absent='token'), features_of('audio', 'image', 'text'), formula)


def test_concat_can_do_without_a_learned_vector():
    def formula(p, h):
        vectors = [
            plain.dense(p[f'project_{modality}'], h[modality]) if modality in h else np.zeros(4)
            for modality in ('image', 'text')
        ]
        joint = plain.dense(p['joint'], plain.gelu(np.concatenate(vectors)))
        return plain.layer_norm(p['LayerNorm_0'], joint)

    check_vectors(fusion.Concat(width=4, pooling='mean', absent='neutral'), features_of('image', 'text'), formula)
