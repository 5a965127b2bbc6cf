"""The BERT that comes out of published weights computes what plain numpy computes from them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax import pretrained
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import Ragged
from tests import quick
from tests.pretrained import tiny_bert
from tests.pretrained.tiny_bert import CONFIG, DISTILLED, IDS, MASK

TEXT = Ragged(jnp.asarray(IDS), jnp.asarray(MASK))


@pytest.fixture
def arrays():
    return tiny_bert.weights()


def states_of(tower: pretrained.Tower, text: Ragged = TEXT, **options) -> list[np.ndarray]:
    """Returns all hidden states, the tower's output last."""

    def forward(params, text):
        return tower.encoder.apply({'params': params}, text, train=False, mutable='intermediates', **options)

    features, sown = quick.jit(forward)(tower.params, text)
    states = list(sown['intermediates']['hidden_states'])
    np.testing.assert_array_equal(states[-1], features.tokens)
    return [np.asarray(state) for state in states]


def assert_same_states(states, arrays, types=None):
    for row, (ids, mask) in enumerate(zip(IDS, MASK, strict=True)):
        expected = tiny_bert.hidden_states(arrays, ids[mask], None if types is None else types[row][mask])
        assert len(states) == len(expected)
        for ours, theirs in zip(states, expected, strict=True):
            # float32 against float64: some 1e-7 for each of the dozens of sums on the way.
            np.testing.assert_allclose(ours[row][mask], theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
            assert not ours[row][~mask].any()


def test_hidden_states_of_a_padded_batch_are_those_of_each_text_alone(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))
    assert_same_states(states_of(tower), arrays)


def test_types_of_segments(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))
    types = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]], np.int32)
    assert_same_states(states_of(tower, types=jnp.asarray(types)), arrays, types)


def test_distilbert(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, tiny_bert.distilled(arrays), DISTILLED))
    assert tower.encoder.num_types == 0
    arrays.pop('embeddings.token_type_embeddings.weight')
    assert_same_states(states_of(tower), arrays)
    with pytest.raises(ValueError, match='takes no types'):
        tower.encoder.apply({'params': tower.params}, TEXT, train=False, types=TEXT.values)


@pytest.mark.parametrize('prefix', ['', 'bert.'])
@pytest.mark.parametrize('norms', [('weight', 'bias'), ('gamma', 'beta')])
def test_round_trip_to_the_bit(tmp_path, arrays, prefix, norms):
    published = {'cls.predictions.bias': np.arange(3, dtype=np.float32)} if prefix else {}
    for name, array in arrays.items():
        if 'LayerNorm' in name:
            name = name.replace('weight', norms[0]).replace('bias', norms[1])
        published[prefix + name] = array
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path / 'in', published))
    assert set(tower.unused) == {name for name in published if 'pooler' in name or 'cls' in name}
    tower.export(tmp_path / 'out')
    exported = pretrained.read_weights(tmp_path / 'out')
    assert set(exported) == set(published)
    for name, array in published.items():
        np.testing.assert_array_equal(exported[name].view(np.int32), array.view(np.int32), err_msg=name)
    assert json.loads((tmp_path / 'out' / 'config.json').read_text()) == CONFIG
    again = pretrained.bert(tmp_path / 'out')
    jax.tree.map(np.testing.assert_array_equal, again.params, tower.params)


def test_trained_parameters_are_exported(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))
    trained = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, tower.params)
    tower.export(tmp_path / 'trained.safetensors', trained)
    exported = pretrained.read_weights(tmp_path / 'trained.safetensors')
    name = 'encoder.layer.1.attention.self.key.weight'
    np.testing.assert_array_equal(exported[name], arrays[name] + 1)
    np.testing.assert_array_equal(exported['pooler.dense.weight'], arrays['pooler.dense.weight'])
    with pytest.raises(ValueError, match=r'the parameters lack embedding_norm/bias, .* and 33 more'):
        tower.export(tmp_path / 'wrong.safetensors', trained['layer_0'])
    assert not (tmp_path / 'wrong.safetensors').exists()


@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16])
def test_half_precision_becomes_float32(tmp_path, arrays, dtype):
    halves = {name: array.astype(dtype) for name, array in arrays.items()}
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, halves))
    assert {leaf.dtype for leaf in jax.tree.leaves(tower.params)} == {np.dtype('float32')}
    table = halves['embeddings.word_embeddings.weight']
    np.testing.assert_array_equal(tower.params['word_embedding']['embedding'], table.astype(np.float32))


def test_arithmetic_of_less_precision(tmp_path, arrays):
    folder = tiny_bert.write_folder(tmp_path, arrays)
    exact, rough = (pretrained.bert(folder, **options) for options in ({}, {'dtype': jnp.bfloat16}))
    features = rough.encoder.apply({'params': rough.params}, TEXT, train=False)
    assert features.tokens.dtype == jnp.float32
    difference = np.abs(features.tokens - states_of(exact)[-1]).max()
    # bfloat16 keeps 8 bits of the values, which are below 4 here.
    assert 1e-4 < difference < 0.2


def test_report_accounts_for_every_name(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))
    assert {*tower.report.loaded, *tower.report.unused} == set(arrays)
    assert len(tower.report.loaded) == len(jax.tree.leaves(tower.params))
    assert str(tower.report) == '37 loaded, 2 unused'
    assert tower.report.problems() == ''


def test_weights_that_do_not_fit_are_told_in_one_sentence_or_replaced(tmp_path, arrays):
    lost, wrong, strange = 'encoder.layer.0.output.dense.bias', 'embeddings.LayerNorm.weight', 'encoder.layer.7.scale'
    del arrays[lost]
    arrays |= {wrong: np.ones(5, np.float32), strange: np.ones(1, np.float32)}
    folder = tiny_bert.write_folder(tmp_path, arrays)
    with pytest.raises(ValueError, match='does not fit BERT') as error:
        pretrained.bert(folder)
    for part in (f'1 missing ({lost})', f'1 unexpected ({strange})', f'({wrong}: (5,), expected (12,))'):
        assert part in str(error.value)
    with pytest.raises(ValueError, match='does not fit BERT: 1 missing'):
        pretrained.bert(folder, ignore=['embeddings.*', strange])
    ignoring = pretrained.bert(folder, ignore=[lost, wrong, strange])
    assert ignoring.report.ignored == tuple(sorted([lost, wrong, strange]))
    lenient = pretrained.bert(folder, strict=False)
    assert lenient.report.missing == (lost,)
    assert lenient.report.mismatched == (f'{wrong}: (5,), expected (12,)',)
    jax.tree.map(np.testing.assert_array_equal, lenient.params, ignoring.params)
    leaves = flatten_with_paths(lenient.params)
    np.testing.assert_array_equal(leaves['embedding_norm/scale'], np.ones(12))
    np.testing.assert_array_equal(leaves['layer_1/mlp_out/bias'], arrays['encoder.layer.1.output.dense.bias'])


def test_numbers_of_another_kind_do_not_fit(tmp_path, arrays):
    arrays['pooler.dense.weight'] = arrays['pooler.dense.weight'].astype(np.int8)
    name = 'encoder.layer.0.output.dense.weight'
    arrays[name] = arrays[name].astype(np.int8)
    with pytest.raises(ValueError, match=rf'{name}: int8, expected floating-point numbers'):
        pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'model_type': 'roberta'}, "a model of type 'roberta'; pretrained.bert reads bert and distilbert"),
        ({'model_type': None}, 'a model of type None'),
        ({'hidden_size': None}, "lacks 'hidden_size'"),
        ({'position_embedding_type': 'relative_key'}, 'relative positions'),
        ({'is_decoder': True}, 'is a decoder'),
        ({'vocab_size': 24}, r'word_embeddings.weight: \(23, 12\), expected \(24, 12\)'),
        ({'num_attention_heads': 5}, r'attention.self.key.weight: \(12, 12\), expected \(15, 12\)'),
        ({'num_hidden_layers': 3}, '16 missing'),
        ({'num_hidden_layers': 1}, '16 unexpected'),
        ({'hidden_act': 'silu'}, "activation must be one of gelu, gelu_new, quick_gelu, relu, got 'silu'"),
    ],
)
def test_another_architecture_is_told(tmp_path, arrays, change, what):
    config = {key: value for key, value in {**CONFIG, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=what):
        pretrained.bert(tiny_bert.write_folder(tmp_path, arrays, config))


def test_a_configuration_may_be_given_and_fields_added(tmp_path, arrays):
    pretrained.write_weights(tmp_path / 'weights.safetensors', arrays)
    with pytest.raises(ValueError, match=r'there is no config\.json'):
        pretrained.bert(tmp_path / 'weights.safetensors')
    tower = pretrained.bert(tmp_path / 'weights.safetensors', config=CONFIG, dropout_rate=0.1)
    assert (tower.encoder.dropout_rate, tower.encoder.depth) == (0.1, 2)
    with pytest.raises(ValueError, match="did you mean 'dropout_rate'"):
        pretrained.bert(tmp_path / 'weights.safetensors', config=CONFIG, dropout=0.1)


def test_texts_that_do_not_fit_are_told(tmp_path, arrays):
    tower = pretrained.bert(tiny_bert.write_folder(tmp_path, arrays))
    long = Ragged(jnp.ones((1, 10), jnp.int32), jnp.ones((1, 10), bool))
    with pytest.raises(ValueError, match='text of 10 ids is longer than the 9 positions'):
        tower.encoder.apply({'params': tower.params}, long, train=False)
    with pytest.raises(ValueError, match='tokenize it first'):
        tower.encoder.apply({'params': tower.params}, Ragged(jnp.ones((1, 2)), jnp.ones((1, 2), bool)), train=False)
