"""Runs that begin with published weights, or on features of a frozen tower."""

import json
import shutil

import jax
import numpy as np
import pytest

from mmtl_jax import data, pretrained, train
from mmtl_jax.core.types import Ragged
from mmtl_jax.experiment import from_config
from mmtl_jax.pretrained import frozen_features
from mmtl_jax.pretrained.frozen_features import FrozenFeatures, with_frozen_features
from mmtl_jax.run import open_run
from tests.configs import published
from tests.pretrained import tiny_bert
from tests.verbs import call, one_error

CONFIG = 'tests/configs/published.py'


@pytest.fixture
def weights(tmp_path):
    return published.write(tmp_path / 'weights')


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A folder of its own for frozen features."""
    folder = tmp_path / 'tables'
    monkeypatch.setitem(with_frozen_features.__kwdefaults__, 'folder', folder)
    return folder


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(train, 'write_results', lambda *unused: None)


def start(config: str, workdir) -> int:
    return call('train', f'--config={CONFIG}:{config}', f'--workdir={workdir}')


def features_of(folder, **changes) -> FrozenFeatures:
    """Returns what the config computes, of the tokenizer and the weights in `folder`."""
    config = published.get_config(f'frozen:{folder}').data.frozen_features.features.to_dict()
    vocabularies = {'published': pretrained.tokenizer.tokenizer_json(folder)}
    return FrozenFeatures(**config, vocabularies=vocabularies, **changes)


def test_a_new_run_begins_with_the_published_weights_and_its_average_too(weights):
    experiment = from_config(published.get_config(str(weights)))
    state = open_run(experiment).new_state()
    tower = pretrained.bert(weights)
    for params in (state.params, state.average):
        jax.tree.map(np.testing.assert_array_equal, params['encoders']['text'], tower.params)
    fresh = from_config(published.get_config(str(weights)).to_dict() | {'seed': 1})
    other = open_run(fresh).new_state().params['encoders']
    assert np.any(other['table']['Dense_0']['kernel'] != state.params['encoders']['table']['Dense_0']['kernel'])


@pytest.mark.usefixtures('no_report')
def test_a_saved_run_needs_neither_weights_nor_tokenizer(weights, tmp_path, capsys):
    run = tmp_path / 'run'
    assert start(str(weights), run) == 0
    before = capsys.readouterr().out
    assert call('evaluate', f'--workdir={run}') == 0
    before = capsys.readouterr().out
    shutil.rmtree(weights)
    assert call('evaluate', f'--workdir={run}') == 0
    assert capsys.readouterr().out == before
    assert call('predict', f'--workdir={run}', f'--out={tmp_path / "answers.jsonl"}') == 0


@pytest.mark.usefixtures('no_report')
def test_a_run_does_not_go_on_from_other_weights_or_another_tokenizer(weights, tmp_path, capsys):
    run = tmp_path / 'run'
    assert start(str(weights), run) == 0
    published.write(weights, seed=1)
    capsys.readouterr()
    assert start(str(weights), run) == 1
    assert 'began with other data or weights: its encoders' in one_error(capsys)
    published.write(weights, entries=(*published.ENTRIES[:-1], 'z'))
    assert start(str(weights), run) == 1
    assert 'began with other data or weights: its vocabularies' in one_error(capsys)
    published.write(weights)
    assert start(str(weights), run) == 0


@pytest.mark.parametrize('prefix', ['', 'frozen:'])
def test_a_tokenizer_of_another_size_is_told(weights, tables, prefix):
    published.write(weights, entries=published.ENTRIES[:-2])
    sentence = "tokenizer 'published' has 21 entries, but BERT, which reads 'ids', embeds 23"
    with pytest.raises(ValueError, match=sentence):
        _ = from_config(published.get_config(f'{prefix}{weights}')).fitted


def test_an_encoder_that_no_published_weights_fit_is_told(weights):
    values = published.get_config(str(weights)).to_dict()
    values['encoders']['table']['pretrained'] = str(weights)
    with pytest.raises(ValueError, match="no published weights fit the encoder 'TabularMLP'"):
        from_config(values)


def test_frozen_features_are_those_of_the_tower(weights, tmp_path):
    source = data.load_source('tests.configs.published.examples', 'train')
    joined = with_frozen_features(source, {'features': features_of(weights)}, folder=tmp_path / 'tables')
    tower, encode = pretrained.bert(weights), pretrained.read_tokenizer(weights, max_length=8)
    rows = [row for row in range(12) if source[row]['text'] is not None]
    assert joined[next(row for row in range(40) if source[row]['text'] is None)]['features'] is None
    for row in rows[:4]:
        ids = encode(source[row]['text'])[None]
        tokens = tower.encoder.apply(tower.variables, Ragged(ids, ids > 0), train=False).tokens[0]
        # Padding changes the order in which sums are taken.
        np.testing.assert_allclose(joined[row]['features'], tokens.mean(0), rtol=1e-4, atol=1e-6)
    every = with_frozen_features(
        source, {'tokens': features_of(weights, pooling='none', buckets=(4, 8))}, folder=tmp_path / 'tables'
    )
    for row in rows:
        assert every[row]['tokens'].shape == (len(encode(source[row]['text'])), 12)
        np.testing.assert_allclose(every[row]['tokens'].mean(0), joined[row]['features'], rtol=1e-4, atol=1e-6)


def test_frozen_features_are_computed_once_for_each_different_input(weights, tmp_path, monkeypatch):
    source = data.load_source('tests.configs.published.examples', 'train')
    said = []

    def join(folder=weights, **changes):
        features = {'features': features_of(folder, **changes)}
        return with_frozen_features(source, features, folder=tmp_path / 'tables', say=said.append)

    first = join()
    different = {source[row]['text'] for row in range(len(source))}
    assert len(different) < len(source)
    assert said[0].startswith(f'computing features of {len(different)} different inputs')
    moved = shutil.copytree(weights, tmp_path / 'moved')
    monkeypatch.setattr(frozen_features, 'load', None)  # the weights are not read again, wherever they are
    again = join(moved)
    assert len(said) == 1
    np.testing.assert_array_equal(first[5]['features'], again[5]['features'])
    monkeypatch.undo()
    published.write(weights, seed=1)
    other = join()
    assert len(said) == 2
    assert np.any(other[5]['features'] != first[5]['features'])
    join(pooling='none')
    assert len(said) == 3


@pytest.mark.usefixtures('no_report')
def test_a_head_trains_on_frozen_features_and_knows_their_weights(weights, tables, tmp_path, capsys):
    run = tmp_path / 'run'
    assert start(f'frozen:{weights}', run) == 0
    assert len(list((tables / 'tests.configs.published.examples').iterdir())) == 3
    known = json.loads((run / 'fitted.json').read_text())['weights']
    assert set(known) == {'features'}
    assert call('evaluate', f'--workdir={run}', '--split=test') == 0
    published.write(weights, seed=1)
    capsys.readouterr()
    assert call('evaluate', f'--workdir={run}', '--split=test') == 1
    assert "trained on frozen features 'features' of other weights than those" in one_error(capsys)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'pooling': 'max'}, "pooling of frozen features is one of .*, got 'max'"),
        ({'tower': {'name': 'BERT'}}, "the tower of frozen features lacks 'pretrained'"),
        ({'poling': 'mean'}, "data.frozen_features.features has no argument 'poling'; did you mean 'pooling'"),
        ({'key': 'idds'}, "reads the key 'idds', which no example of .* has; did you mean 'ids'"),
    ],
)
def test_a_wrong_specification_is_told(weights, tables, changes, sentence):
    values = published.get_config(f'frozen:{weights}').to_dict()
    values['data']['frozen_features']['features'] |= changes
    with pytest.raises(ValueError, match=sentence):
        _ = from_config(values).fitted


def test_a_key_of_the_data_is_not_written_over(weights, tmp_path):
    source = data.load_source('tests.configs.published.examples', 'train')
    with pytest.raises(ValueError, match="has a key 'text' already; give the frozen features another"):
        with_frozen_features(source, {'text': features_of(weights)}, folder=tmp_path)


def test_the_tiny_weights_have_as_many_entries_as_the_tokenizer():
    assert len(published.ENTRIES) == tiny_bert.CONFIG['vocab_size']
