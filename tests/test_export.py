"""Trained runs as safetensors: by this library's names, and by those of the library that the weights came from."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from mmtl_jax import pretrained, train
from mmtl_jax.core.types import Ragged
from mmtl_jax.experiment import from_config
from mmtl_jax.run import open_run, saved_experiment, trained
from tests.configs import published, tiny
from tests.verbs import call, edited, one_error, train_tiny


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(train, 'write_results', lambda *unused: None)


def best(workdir: pathlib.Path):
    """Returns the experiment of a run and the variables of its best checkpoint."""
    experiment = saved_experiment(workdir)
    with trained(workdir, experiment) as (_, state, _):
        return experiment, state.inference


def test_encoders_and_the_whole_model_are_written_and_read_again(tmp_path, capsys):
    run, out = tmp_path / 'run', tmp_path / 'towers'
    assert train_tiny(run, '--config.training.num_steps=2', '--config.training.eval_every=2') == 0
    assert call('export', f'--workdir={run}', f'--out={out}') == 0
    experiment, variables = best(run)
    for modality in ('table', 'text'):
        name = experiment.config['encoders'][modality]['name']
        tower = pretrained.load(name, out / modality)
        assert tower.encoder == experiment.model.encoders[modality]
        jax.tree.map(np.testing.assert_array_equal, tower.params, variables['params']['encoders'][modality])
    whole = pretrained.read_weights(out / 'model.safetensors')
    np.testing.assert_array_equal(
        whole['encoders.table.Dense_0.kernel'], variables['params']['encoders']['table']['Dense_0']['kernel']
    )
    assert sum(array.size for array in whole.values()) == sum(leaf.size for leaf in jax.tree.leaves(variables))

    values = tiny.get_config().to_dict()
    values['encoders']['table'] = {'name': 'TabularMLP', 'pretrained': str(out / 'table')}
    state = open_run(from_config(values)).new_state()
    begun = state.params['encoders']['table']
    jax.tree.map(np.testing.assert_array_equal, begun, variables['params']['encoders']['table'])

    capsys.readouterr()
    assert call('export', f'--workdir={run}', f'--out={out}') == 1
    assert 'exists; choose another name, nothing is overwritten' in one_error(capsys)


@pytest.mark.parametrize(
    'adapters',
    [pytest.param('', marks=pytest.mark.slow), "config.encoders.text.lora = {'rank': 2}"],
    ids=['whole', 'adapted'],
)
def test_published_weights_go_back_to_their_names(adapters, tmp_path, capsys):
    weights, run, out = published.write(tmp_path / 'weights'), tmp_path / 'run', tmp_path / 'out'
    config = edited(tmp_path, adapters or 'pass', 'tests.configs.published', str(weights))
    assert train_tiny(run, config=config) == 0
    experiment, variables = best(run)
    params = variables['params']['encoders']['text']
    before = pretrained.bert(weights)
    if adapters:
        jax.tree.map(np.testing.assert_array_equal, params['base'], before.params)
        assert any(leaf.any() for leaf in jax.tree.leaves(params['lora']['layer_0']))

    kept = pretrained.read_weights(weights)
    moved = shutil.move(weights, tmp_path / 'moved')
    assert call('export', f'--workdir={run}', f'--out={out}') == 1
    assert f'there is no file or folder {weights}' in capsys.readouterr().err
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(moved, weights)
    assert call('export', f'--workdir={run}', f'--out={out}') == 0
    written = pretrained.read_weights(out / 'text')
    assert written.keys() == kept.keys()
    np.testing.assert_array_equal(written['pooler.dense.weight'], kept['pooler.dense.weight'])
    query = 'encoder.layer.0.attention.self.query.weight'
    assert np.any(written[query] != kept[query])
    assert (out / 'text' / 'vocab.txt').exists()

    tower = pretrained.bert(out / 'text')
    text = Ragged(np.array([[2, 5, 6, 3]], np.int32), np.ones((1, 4), bool))
    ours = experiment.model.encoders['text'].apply({'params': params}, text, train=False)
    # Adapters that were merged are rounded once more.
    np.testing.assert_allclose(
        tower.encoder.apply(tower.variables, text, train=False).tokens, ours.tokens, rtol=1e-5, atol=1e-5
    )
