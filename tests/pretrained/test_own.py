"""Encoders that this library trained, as files."""

import json

import jax
import numpy as np
import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.core.types import Ragged
from mmtl_jax.encoders import LoRA
from mmtl_jax.pretrained.from_spec import encoder_from_spec
from mmtl_jax.pretrained.own import own
from tests import quick
from tests.pretrained import tiny_bert

IMAGES = np.random.default_rng(0).uniform(size=(2, 9, 8, 3)).astype(np.float32)
IDS = Ragged(np.array([[3, 4, 0]], np.int32), np.array([[True, True, False]]))


@pytest.mark.parametrize(
    ('encoder', 'example'),
    [
        (encoders.ResNet(width=6, depth=18, stage_sizes=(1,), base_width=4), IMAGES),
        (encoders.TextTransformer(width=8, vocab_size=9, depth=1, num_heads=2), IDS),
    ],
    ids=['images and running statistics', 'texts'],
)
def test_what_was_written_comes_back_to_the_bit(encoder, example, tmp_path):
    init = quick.jit(lambda key: encoder.init(key, example, train=False))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.5, init(jax.random.key(0)))
    pretrained.export_encoder(tmp_path, encoder, variables, example, input={'steps': ()})
    tower = pretrained.load(type(encoder).__name__, tmp_path)
    assert tower.encoder == encoder
    jax.tree.map(np.testing.assert_array_equal, tower.variables, dict(variables))
    assert not tower.report.problems()
    assert json.loads((tmp_path / 'config.json').read_text())['input'] == {'steps': []}
    tower.export(tmp_path / 'again')
    assert pretrained.load(type(encoder).__name__, tmp_path / 'again').encoder == encoder


def test_a_field_may_be_another(tmp_path):
    encoder = encoders.TextTransformer(width=8, vocab_size=9, depth=1, num_heads=2)
    variables = quick.jit(lambda key: encoder.init(key, IDS, train=False))(jax.random.key(0))
    pretrained.export_encoder(tmp_path, encoder, variables, IDS)
    assert pretrained.load('TextTransformer', tmp_path, dropout_rate=0.3).encoder.dropout_rate == 0.3
    with pytest.raises(ValueError, match=r"holds the encoder 'TextTransformer', not 'BERT'; name that"):
        pretrained.load('BERT', tmp_path)
    with pytest.raises(ValueError, match='does not fit TextTransformer: 19 of another shape or kind'):
        pretrained.load('TextTransformer', tmp_path, width=4)


def test_a_model_of_another_library_is_told(tmp_path):
    folder = tiny_bert.write_folder(tmp_path, tiny_bert.weights())
    with pytest.raises(ValueError, match="is a model of type 'bert', not written by this library; name its encoder"):
        own(folder)


def test_adapters_need_weights_that_were_trained_before():
    with pytest.raises(ValueError, match="encoder 'BERT' has 'lora' without 'pretrained'; adapters change weights"):
        encoder_from_spec({'name': 'BERT', 'width': 8, 'vocab_size': 9, 'lora': {'rank': 2}})


def test_wrong_adapters_are_told(tmp_path):
    spec = {'name': 'BERT', 'pretrained': tiny_bert.write_folder(tmp_path, tiny_bert.weights())}
    with pytest.raises(ValueError, match="LoRA has no argument 'rang'; did you mean 'rank'"):
        encoder_from_spec({**spec, 'lora': {'rang': 2}})
    start = encoder_from_spec({**spec, 'lora': {'rank': 2}})
    assert isinstance(start.module, LoRA)
    assert set(start.variables['params']) == {'base'}
