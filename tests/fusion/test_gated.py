"""Gates and modulation by their formulas, on rows with every subset of the modalities."""

import numpy as np
import pytest

from mmtl_jax import fusion
from tests.fusion.by_hand import check_vectors, features_of, subsets
from tests.nn import plain


def candidate(p, modality, h):
    return np.tanh(plain.dense(p[f'project_{modality}'], h))


def gmu_of_two(p, h):
    """1702.01992, figure 2 b, for text and image; a single modality stands for itself."""
    if len(h) == 1:
        ((modality, vector),) = h.items()
        return candidate(p, modality, vector)
    z = plain.sigmoid(plain.dense(p['gates'], np.concatenate([h['image'], h['text']])))
    return z * candidate(p, 'image', h['image']) + (1 - z) * candidate(p, 'text', h['text'])


def gmu_of_three(p, h):
    """1702.01992, figure 2 a, where an absent modality is zero in the gates."""
    modalities = ['audio', 'image', 'text']
    sizes = {modality: len(p[f'project_{modality}']['kernel']) for modality in modalities}
    joint = np.concatenate([h.get(modality, np.zeros(sizes[modality])) for modality in modalities])
    gates = np.split(plain.sigmoid(plain.dense(p['gates'], joint)), 3)
    return sum(gates[modalities.index(modality)] * candidate(p, modality, h[modality]) for modality in h)


def test_gated_of_two_modalities():
    weights = check_vectors(fusion.Gated(width=4, pooling='mean'), features_of('image', 'text'), gmu_of_two)
    weights = weights['modality_weights'][0]
    # Rows: both, image, text.
    np.testing.assert_allclose(weights['image'] + weights['text'], 1, atol=1e-6)
    np.testing.assert_array_equal(weights['image'][1:], [1, 0])


def test_gated_of_three_modalities():
    check_vectors(fusion.Gated(width=4, pooling='mean'), features_of('audio', 'image', 'text'), gmu_of_three)


@pytest.mark.parametrize('modulated', [None, 'text'])
def test_film(modulated):
    def formula(p, h):
        """1709.07871, eq. 2, with gamma = 1 + what the others ask for."""
        target = modulated or 'audio'
        gamma, beta = np.ones(4), np.zeros(4)
        for modality in set(h) - {target}:
            scale, shift = np.split(plain.dense(p[f'film_{modality}'], h[modality]), 2)
            gamma, beta = gamma + scale, beta + shift
        base = plain.dense(p[f'project_{target}'], h[target]) if target in h else np.zeros(4)
        return plain.dense(p['joint'], gamma * base + beta)

    module = fusion.FiLM(width=4, pooling='mean', modulated=modulated)
    check_vectors(module, features_of('audio', 'image', 'text'), formula)


def test_film_of_a_modality_that_is_not_there():
    module = fusion.FiLM(width=4, modulated='speech')
    with pytest.raises(ValueError, match=r"FiLM: modulated must be one of \['image', 'text'\], got 'speech'"):
        check_vectors(module, features_of('image', 'text'), None)


def test_a_learned_vector_stands_for_an_absent_modality():
    def formula(p, h):
        given = {modality: h.get(modality, p[f'absent_{modality}']) for modality in ('image', 'text')}
        return gmu_of_two(p, given)

    assert subsets('image', 'text')[1:] == [('image',), ('text',)]
    check_vectors(fusion.Gated(width=4, pooling='mean', absent='token'), features_of('image', 'text'), formula)
