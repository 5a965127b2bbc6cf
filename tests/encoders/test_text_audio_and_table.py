"""What the other encoders do by hand: average embeddings, stack frames, tell a missing cell; and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import encoders
from mmtl_jax.core.types import Ragged
from mmtl_jax.encoders.audio import tokens_from
from tests import quick

IDS = Ragged(jnp.array([[3, 1, 3], [2, 0, 0]]), jnp.array([[True, True, True], [True, False, False]]))
FRAMES = Ragged(jnp.arange(10.0).reshape(1, 5, 2), jnp.array([[True, True, True, False, False]]))


def standardised(x: np.ndarray) -> np.ndarray:
    """Returns what a LayerNorm with scale 1 and bias 0 does to the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def test_a_bag_of_embeddings_by_hand():
    encoder = encoders.BagOfEmbeddings(vocab_size=4, width=5, embedding_width=3)
    variables = quick.parameters(encoder, IDS, train=False)
    table, dense = (variables['params'][name] for name in ('embedding', 'Dense_0'))
    rows = table['embedding']
    bags = np.stack([(2 * rows[3] + rows[1]) / 3, rows[2]])
    expected = standardised(standardised(bags) @ dense['kernel'] + dense['bias'])
    tokens = quick.jit(lambda: encoder.apply(variables, IDS, train=False))().tokens
    # float32, of which the LayerNorms keep about five digits.
    np.testing.assert_allclose(tokens[:, 0], expected, atol=1e-5)


def test_dropping_tokens_gives_the_bag_of_those_that_stay():
    encoder = encoders.BagOfEmbeddings(vocab_size=4, width=5, token_dropout_rate=0.5)
    subsets = jnp.array([[False, False], [False, True], [True, False], [True, True]])
    ids = jnp.full((64, 2), jnp.array([1, 2]))
    variables = quick.parameters(encoder, IDS, train=False)

    @quick.jit
    def bags():
        dropped = Ragged(ids, jnp.ones(ids.shape, bool))
        in_training = encoder.apply(variables, dropped, train=True, rngs={'dropout': jax.random.key(0)})
        return in_training.tokens[:, 0], encoder.apply(variables, Ragged(ids[:4], subsets), train=False).tokens[:, 0]

    in_training, expected = bags()
    distances = np.abs(in_training[:, None] - expected[None]).max(axis=-1)
    # Another shape sums in another order.
    assert (distances.min(axis=1) < 1e-5).all()
    assert set(distances.argmin(axis=1)) == {0, 1, 2, 3}


def test_a_token_of_audio_is_real_if_one_of_its_frames_is():
    tokens, mask = tokens_from(FRAMES, 2, None)
    np.testing.assert_array_equal(tokens, [[[0, 1, 2, 3], [4, 5, 0, 0], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(mask, [[True, True, False]])


def test_a_missing_cell_is_told_from_every_value():
    encoder = encoders.TabularMLP(width=6, depth=1)
    cells = jnp.array([[1.0, jnp.nan], [1.0, 0.0]])
    variables = quick.parameters(encoder, cells, train=False)
    # The learned value starts at zero, so only the indicator tells the rows apart.
    missing, zero = quick.jit(lambda: encoder.apply(variables, cells, train=False))().tokens
    assert jnp.max(jnp.abs(missing - zero)) > 0.01


@pytest.mark.parametrize(
    ('name', 'arguments', 'inputs', 'message'),
    [
        ('TextLSTM', {}, FRAMES, r'integer ids \[B, L\], got float32 \(1, 5, 2\); tokenize it first'),
        ('TextTransformer', {}, FRAMES, r'integer ids \[B, L\], got float32 \(1, 5, 2\); tokenize it first'),
        ('AudioCNN', {}, IDS, r'frames \[B, T, mels\], got \(2, 3\); set front_end={} for a waveform'),
        ('AudioLSTM', {'front_end': {}}, FRAMES, r'a waveform \[B, L\], got \(1, 5, 2\); leave front_end out'),
        ('AudioConformer', {}, IDS, r'frames \[B, T, mels\], got \(2, 3\)'),
        ('TabularMLP', {}, jnp.zeros((2, 3), jnp.int32), r'floats \[B, F\] with NaN for missing, got int32 \(2, 3\)'),
    ],
)
def test_bad_input_is_told_in_one_sentence(name, arguments, inputs, message):
    arguments = {'vocab_size': 4} | arguments if 'Text' in name or 'Bag' in name else arguments
    encoder = getattr(encoders, name)(width=6, **arguments)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: encoder.init(jax.random.key(0), inputs, train=False))
