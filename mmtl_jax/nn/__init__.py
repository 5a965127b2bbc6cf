"""Floor 1: layers that two or more packages or several encoders use."""

from mmtl_jax.nn.attention import Attention, SelfAttention
from mmtl_jax.nn.boxes import box_area, box_iou, box_overlap
from mmtl_jax.nn.checked import CheckedModule
from mmtl_jax.nn.conv import DepthwiseConv, ResidualConv
from mmtl_jax.nn.dropout import channel_dropout
from mmtl_jax.nn.front_end import LogMel
from mmtl_jax.nn.initializers import conv_kernel
from mmtl_jax.nn.masking import fill_masked, masked_softmax
from mmtl_jax.nn.mlp import MLP, FeedForward
from mmtl_jax.nn.pooling import AttentionPooling, masked_mean, max_over
from mmtl_jax.nn.positions import rotate, sinusoids
from mmtl_jax.nn.precision import at_least_float32, in_dtype, is_float_type
from mmtl_jax.nn.recurrent import LSTM
from mmtl_jax.nn.transformer import AttentionBlock, TransformerBlock

__all__ = [
    'LSTM',
    'MLP',
    'Attention',
    'AttentionBlock',
    'AttentionPooling',
    'CheckedModule',
    'DepthwiseConv',
    'FeedForward',
    'LogMel',
    'ResidualConv',
    'SelfAttention',
    'TransformerBlock',
    'at_least_float32',
    'box_area',
    'box_iou',
    'box_overlap',
    'channel_dropout',
    'conv_kernel',
    'fill_masked',
    'in_dtype',
    'is_float_type',
    'masked_mean',
    'masked_softmax',
    'max_over',
    'rotate',
    'sinusoids',
]
