"""Floor 3: published weights for this library's encoders, and the way back.

A converter is a function from a file or a folder to a `Tower`: the encoder, its parameters and a report of every name.
"""

from mmtl_jax.pretrained.bert import bert
from mmtl_jax.pretrained.by_name import load
from mmtl_jax.pretrained.efficientnet import efficientnet_lite0
from mmtl_jax.pretrained.image import image_classifier
from mmtl_jax.pretrained.resnet import resnet
from mmtl_jax.pretrained.tokenizer import read_tokenizer
from mmtl_jax.pretrained.tower import Tower
from mmtl_jax.pretrained.vgg import vgg16
from mmtl_jax.pretrained.vit import vit
from mmtl_jax.pretrained.weights import read_weights, write_weights

__all__ = [
    'Tower',
    'bert',
    'efficientnet_lite0',
    'image_classifier',
    'load',
    'read_tokenizer',
    'read_weights',
    'resnet',
    'vgg16',
    'vit',
    'write_weights',
]
