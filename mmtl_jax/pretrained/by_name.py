"""Converters by the name of the encoder that they make, the form for configs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmtl_jax.pretrained.bert import bert
from mmtl_jax.pretrained.clip import clip_image, clip_text
from mmtl_jax.pretrained.efficientnet import efficientnet_lite0
from mmtl_jax.pretrained.own import is_own, own
from mmtl_jax.pretrained.resnet import resnet
from mmtl_jax.pretrained.tower import Tower
from mmtl_jax.pretrained.vgg import vgg16
from mmtl_jax.pretrained.vit import vit
from mmtl_jax.pretrained.wav2vec2 import wav2vec2
from mmtl_jax.pretrained.whisper import whisper

CONVERTERS: Mapping[str, Callable[..., Tower]] = MappingProxyType(
    {
        'BERT': bert,
        'CLIPImage': clip_image,
        'CLIPText': clip_text,
        'EfficientNetLite0': efficientnet_lite0,
        'ResNet': resnet,
        'VGG16': vgg16,
        'ViT': vit,
        'Wav2Vec2': wav2vec2,
        'Whisper': whisper,
    }
)


def load(name: str, path: str | Path, **options: Any) -> Tower:
    """Returns the encoder `name` with the weights of `path`.

    A config says `{'name': 'BERT', 'pretrained': path, 'dropout_rate': 0.1}`, which is
    `load('BERT', path, dropout_rate=0.1)`. Any encoder may begin with what `export_encoder` wrote of it.

    Args:
      name: an encoder's class, for weights of other libraries a key of `CONVERTERS`.
      path: file or folder of weights.
      **options: what its converter takes: fields of the encoder, `strict`, `ignore`, `key`, `config`.

    Raises:
      ValueError: there is no converter for the encoder, or it refuses the weights.
    """
    if is_own(path):
        return own(path, name=name, **options)
    if name not in CONVERTERS:
        raise ValueError(f'no published weights fit the encoder {name!r}; pretrained are {", ".join(CONVERTERS)}.')
    return CONVERTERS[name](path, **options)
