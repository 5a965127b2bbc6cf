"""Floor 2: encoders, one modality to Features.

An encoder is a linen module `(array or Ragged, *, train) -> Features` with a field `width`. It ends with a LayerNorm,
so that what it hands on has unit scale, and gives the same real tokens however far its input is padded. Towers that
published weights fit into (see `mmtl_jax.pretrained`) hand on their own features with `width=None`. `LoRA` goes around
any of them.
"""

from mmtl_jax.encoders.audio import AudioCNN, AudioConformer, AudioLSTM
from mmtl_jax.encoders.bert import BERT
from mmtl_jax.encoders.clip import CLIPImage, CLIPText
from mmtl_jax.encoders.efficientnet import EfficientNetLite0
from mmtl_jax.encoders.image import ImageCNN, ImageResNet
from mmtl_jax.encoders.lora import LoRA
from mmtl_jax.encoders.precomputed import Precomputed
from mmtl_jax.encoders.resnet import ResNet
from mmtl_jax.encoders.tabular import TabularMLP
from mmtl_jax.encoders.text import BagOfEmbeddings, TextLSTM, TextTransformer
from mmtl_jax.encoders.vgg import VGG16
from mmtl_jax.encoders.vit import ViT
from mmtl_jax.encoders.wav2vec2 import Wav2Vec2
from mmtl_jax.encoders.whisper import Whisper

__all__ = [
    'BERT',
    'VGG16',
    'AudioCNN',
    'AudioConformer',
    'AudioLSTM',
    'BagOfEmbeddings',
    'CLIPImage',
    'CLIPText',
    'EfficientNetLite0',
    'ImageCNN',
    'ImageResNet',
    'LoRA',
    'Precomputed',
    'ResNet',
    'TabularMLP',
    'TextLSTM',
    'TextTransformer',
    'ViT',
    'Wav2Vec2',
    'Whisper',
]
