"""The learned temperature, validity and lengths of the contrastive head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import heads
from mmtl_jax.heads.contrastive import unit_length
from tests.heads.test_common import features

READ = {'image': features(0), 'speech': features(2), 'text': features(1)}


def predict(head):
    variables = jax.jit(lambda: head.init(jax.random.key(0), READ, train=False))()
    return variables, head.apply(variables, READ, train=False)


def test_embeddings_have_length_one_where_valid():
    _, predictions = predict(heads.Contrastive(width=6))
    assert list(predictions['embeddings']) == ['image', 'speech', 'text']
    for modality, vectors in predictions['embeddings'].items():
        valid = np.array([True, False, True, True])
        np.testing.assert_array_equal(predictions['valid'][modality], valid)
        # The length is regularised by 1e-12 under the root.
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), valid.astype(float), atol=1e-5)


def test_scale_starts_at_one_over_the_temperature_and_there_is_no_bias_unless_asked():
    _, predictions = predict(heads.Contrastive(width=6, init_temperature=0.1))
    np.testing.assert_allclose(predictions['scale'], 10, rtol=1e-6)
    assert 'bias' not in predictions
    _, predictions = predict(heads.Contrastive(width=6, init_bias=-10.0))
    assert predictions['bias'] == -10


def test_scale_is_clipped_at_100_and_can_come_back():
    head = heads.Contrastive(width=6)
    variables, _ = predict(head)
    variables['params']['log_scale'] = jnp.log(250.0)

    def scale(variables):
        return head.apply(variables, READ, train=False)['scale']

    value, gradient = jax.value_and_grad(scale)(variables)
    np.testing.assert_allclose(value, 100, rtol=1e-5)
    np.testing.assert_allclose(gradient['params']['log_scale'], 100, rtol=1e-5)


def test_reads_only_the_named_modalities():
    variables, predictions = predict(heads.Contrastive(width=6, modalities=('text', 'image')))
    assert list(predictions['embeddings']) == ['text', 'image']
    assert set(variables['params']) == {'text', 'image', 'log_scale'}


def test_zero_vector_has_a_finite_gradient():
    gradient = jax.grad(lambda x: jnp.sum(unit_length(x)))(jnp.zeros((2, 3)))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ('read', 'message'),
    [
        (READ['image'], 'needs at least two, got one'),
        ({'image': READ['image']}, r"needs at least two, got \['image'\]"),
        ({'image': READ['image'], 'text': READ['text']}, "needs the modality 'speech'"),
    ],
)
def test_wrong_modalities(read, message):
    with pytest.raises(ValueError, match=message):
        heads.Contrastive(width=6, modalities=('image', 'speech')).init(jax.random.key(0), read, train=False)
