"""The stamps from published towers as they stand, but with tiny towers, which `write` makes, and for two steps."""

import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import stamps_pretrained
from mmtl_jax import encoders, pretrained
from mmtl_jax.core.types import Ragged
from tests import quick
from tests.configs import published


def write(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder with a tower of random weights for each modality."""
    published.write(folder / 'caption')
    mels = Ragged(np.zeros((1, 120, 80), np.float32), np.ones((1, 120), bool))
    for name, encoder, example in (
        ('image', encoders.ImageCNN(width=8, stage_widths=(8, 8)), np.zeros((1, 64, 64, 3), np.float32)),
        ('speech', encoders.AudioCNN(width=8, depth=1), mels),
    ):
        init = quick.jit(lambda key, encoder=encoder, example=example: encoder.init(key, example, train=False))
        pretrained.export_encoder(folder / name, encoder, init(jax.random.key(0)), example)
    return folder


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config with other towers; `arg` is their folder, and after a '|' the argument of the config."""
    folder, _, argument = arg.partition('|')
    config = stamps_pretrained.get_config(argument).unlock()
    towers = {'image': 'ImageCNN', 'caption': 'BERT', 'speech': 'AudioCNN'}
    for name, tower in towers.items():
        features = config.data.frozen_features.get(f'{name}_features')
        if features is not None:
            features.tower = {'name': tower, 'pretrained': f'{folder}/{name}'}
    if 'caption' in config.encoders:
        config.data.vocabularies.minilm.path = f'{folder}/caption'
        tokenizers = [step for step in config.data.steps if step['name'] == 'tokenize']
        features = config.data.frozen_features.get('caption_features')
        for step in (*tokenizers, *(features.steps if features is not None else ())):
            step['max_length'] = 8
    if 'pretrained' in config.encoders.get('caption', {}):
        config.encoders.caption.pretrained = f'{folder}/caption'
        config.data.buckets.caption = (8,)
    if 'lora' in config.encoders.get('caption', {}):
        config.encoders.caption.lora.rank = 2
    config.data.batch_size = config.data.eval_batch_size = 8
    config.training.update({'num_steps': 2, 'log_every': 1, 'eval_every': 2})
    config.results.num_samples = 2
    return config.lock()
