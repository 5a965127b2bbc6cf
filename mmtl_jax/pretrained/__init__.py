"""Floor 3: published weights for this library's encoders, and the way back.

A converter is a function from a file or a folder to a `Tower`: the encoder, its parameters and a report of every name.
"""

from mmtl_jax.pretrained.bert import bert
from mmtl_jax.pretrained.by_name import load
from mmtl_jax.pretrained.clip import clip_image, clip_logit_scale, clip_text
from mmtl_jax.pretrained.content import content_hash
from mmtl_jax.pretrained.efficientnet import efficientnet_lite0
from mmtl_jax.pretrained.image import image_classifier
from mmtl_jax.pretrained.locate import locate
from mmtl_jax.pretrained.own import export_encoder
from mmtl_jax.pretrained.preprocessing import ImagePreprocessing, read_preprocessing
from mmtl_jax.pretrained.resnet import resnet
from mmtl_jax.pretrained.speech import speech_preprocessing
from mmtl_jax.pretrained.tokenizer import read_tokenizer
from mmtl_jax.pretrained.tower import Tower
from mmtl_jax.pretrained.vgg import vgg16
from mmtl_jax.pretrained.vit import vit
from mmtl_jax.pretrained.wav2vec2 import wav2vec2
from mmtl_jax.pretrained.weights import read_weights, write_weights
from mmtl_jax.pretrained.whisper import whisper

__all__ = [
    'ImagePreprocessing',
    'Tower',
    'bert',
    'clip_image',
    'clip_logit_scale',
    'clip_text',
    'content_hash',
    'efficientnet_lite0',
    'export_encoder',
    'image_classifier',
    'load',
    'locate',
    'read_preprocessing',
    'read_tokenizer',
    'read_weights',
    'resnet',
    'speech_preprocessing',
    'vgg16',
    'vit',
    'wav2vec2',
    'whisper',
    'write_weights',
]
