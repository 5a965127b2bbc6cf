"""A run that adapts a pretrained tower moves what it should, and goes on to the bit."""

import json
import pathlib
import re

import numpy as np
import pytest

from mmtl_jax import encoders, pretrained, train
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import Ragged
from mmtl_jax.pretrained.bert import bert_names
from tests import quick
from tests.test_run import assert_equal_to_the_bit, open_latest
from tests.verbs import edited, rows_of, train_tiny

# In the text tower only the factors train; the encoder of the table and what is predicted from it alone rest.
FROZEN = re.compile(r'encoders/text/base|encoders/table|heads/size')
EDIT = """
    config.data.buckets = {{'text': (8,)}}
    config.encoders.text = {{'name': 'BERT', 'pretrained': {folder!r}, 'lora': {{'rank': 2}}}}
    config.fusion = {{'name': 'Concat', 'width': 8}}
    config.balancing = {{'name': 'equal', 'record_every': None}}
    config.optimizer = {{
        'name': 'adamw',
        'learning_rate': 1e-2,
        'schedule': 'constant',
        'weight_decay': 0.1,
        'freeze': ('encoders/table', 'heads/size'),
        'layer_decay': {{'encoders/text': 0.5}},
        'unfreeze': {{'fusion': 1}},
    }}
    config.training.num_steps, config.training.log_every, config.training.eval_every = 2, 1, 1
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config whose text tower has weights from a folder."""
    folder = tmp_path_factory.mktemp('fine_tuning')
    tower = encoders.BERT(vocab_size=11, width=8, depth=2, num_heads=2, mlp_width=16, max_length=8)
    params = quick.parameters(tower, Ragged(np.ones((1, 2), np.int32), np.ones((1, 2), bool)), train=False)['params']
    pretrained.write_weights(folder / 'model.safetensors', bert_names(tower).to_original(params))
    about = {
        'model_type': 'bert',
        'vocab_size': 11,
        'hidden_size': 8,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'intermediate_size': 16,
        'max_position_embeddings': 8,
    }
    (folder / 'config.json').write_text(json.dumps(about))
    return edited(folder, EDIT.format(folder=str(folder)).strip())


def read_tower(config):
    return pretrained.bert(pathlib.Path(config).parent)


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, 'write_results', lambda *unused: None)
        assert train_tiny(workdir, config=config) == 0
    return workdir


def test_only_what_is_trained_moves_and_has_state(config, finished):
    run, state, _ = open_latest(finished)
    # A saved run is opened without the weights of its towers, which its checkpoints have.
    drawn = run.new_state().params
    drawn['encoders']['text']['base'] = read_tower(config).params
    first = flatten_with_paths(drawn)
    for params in (state.params, state.inference['params']):
        moved = {path for path, leaf in flatten_with_paths(params).items() if not np.array_equal(leaf, first[path])}
        assert not any(FROZEN.match(path) for path in moved)
        assert {path for path in first if path.startswith(('encoders/text/lora', 'heads/kind'))} <= moved
        assert any(path.startswith('fusion') for path in moved), 'from step 1 on'
    held = [path for part in (state.optimizer, state.average) for path in flatten_with_paths(part)]
    assert not any(FROZEN.search(path) for path in held)
    assert sum('encoders/text/lora' in path for path in held) == 3 * 8, 'two moments and an average of each factor'


def test_a_resumed_run_equals_one_that_was_not_stopped(config, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'write_results', lambda *unused: None)
    for steps in (1, 2):
        assert train_tiny(tmp_path / 'run', f'--config.training.num_steps={steps}', config=config) == 0
    assert rows_of(tmp_path / 'run') == rows_of(finished)
    assert_equal_to_the_bit(open_latest(tmp_path / 'run')[1], open_latest(finished)[1])


def test_what_is_frozen_must_be_there(config, tmp_path, capsys):
    assert train_tiny(tmp_path / 'run', "--config.optimizer.freeze=('encoders/txt',)", config=config) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert "freeze 'encoders/txt' matches no parameter; there are ['encoders/table', 'encoders/text'" in sentence
