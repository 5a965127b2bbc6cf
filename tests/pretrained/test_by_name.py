"""Converters by the name of their encoder."""

import pytest

from mmtl_jax import encoders, pretrained
from mmtl_jax.pretrained.by_name import CONVERTERS
from tests.pretrained import tiny_bert


def test_every_converter_is_public_and_makes_a_public_encoder():
    assert set(CONVERTERS) <= set(encoders.__all__)
    assert {function.__name__ for function in CONVERTERS.values()} <= set(pretrained.__all__)


def test_a_config_names_an_encoder_and_its_weights(tmp_path):
    tower = pretrained.load('BERT', tiny_bert.write_folder(tmp_path, tiny_bert.weights()), dropout_rate=0.1)
    assert isinstance(tower.encoder, encoders.BERT)
    assert tower.encoder.dropout_rate == 0.1


def test_an_encoder_without_published_weights_is_told(tmp_path):
    with pytest.raises(ValueError, match="no published weights fit the encoder 'TextLSTM'; pretrained are BERT"):
        pretrained.load('TextLSTM', tmp_path)
