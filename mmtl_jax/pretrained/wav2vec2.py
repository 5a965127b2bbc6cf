"""Wav2vec 2.0: from the names of `transformers` to `encoders.Wav2Vec2`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.encoders import Wav2Vec2
from mmtl_jax.pretrained.cache import open_weights
from mmtl_jax.pretrained.names import CONV, Entry, NameTable, Transform
from mmtl_jax.pretrained.originals import layer_entries, prefix_of
from mmtl_jax.pretrained.speech import configured
from mmtl_jax.pretrained.tower import Tower, make_tower
from mmtl_jax.pretrained.weights import read_config

# Field of `encoders.Wav2Vec2` -> key of the original configuration; and what the original takes where it is absent.
KEYS = {
    'width': 'hidden_size',
    'depth': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'mlp_width': 'intermediate_size',
    'conv_widths': 'conv_dim',
    'conv_kernels': 'conv_kernel',
    'conv_strides': 'conv_stride',
    'conv_norm': 'feat_extract_norm',
    'conv_bias': 'conv_bias',
    'position_kernel': 'num_conv_pos_embeddings',
    'position_groups': 'num_conv_pos_embedding_groups',
    'norm_first': 'do_stable_layer_norm',
    'epsilon': 'layer_norm_eps',
    'activation': 'hidden_act',
}
ABSENT = {
    'conv_norm': 'group',
    'conv_bias': False,
    'position_kernel': 128,
    'position_groups': 16,
    'norm_first': False,
    'epsilon': 1e-5,
    'activation': 'gelu',
}
# Variants with adapters have layers that the encoder has not.
ONLY = {'feat_extract_activation': 'gelu', 'add_adapter': False, 'adapter_attn_dim': None}
STEM = 'feature_extractor.conv_layers.0.conv.weight'
# Original name of a layer's part, and its place in `layer_<i>`.
LAYER = {
    'attention.q_proj': 'attention/query',
    'attention.k_proj': 'attention/key',
    'attention.v_proj': 'attention/value',
    'attention.out_proj': 'attention/out',
    'layer_norm': 'attention_norm',
    'feed_forward.intermediate_dense': 'mlp_in',
    'feed_forward.output_dense': 'mlp_out',
    'final_layer_norm': 'mlp_norm',
}
OUTSIDE = {
    'feature_projection.layer_norm': 'conv_features_norm',
    'feature_projection.projection': 'projection',
    'encoder.layer_norm': 'norm',
}
# The two ways in which PyTorch has named scale and direction of a normalised kernel.
OLD_NAMES = ('weight_g', 'weight_v')
NEW_NAMES = ('parametrizations.weight.original0', 'parametrizations.weight.original1')
# [1, 1, window] -> [window]
TAPS = Transform(lambda array: (array.reshape(-1),), lambda array: array.reshape(1, 1, -1), 'taps')
# The heads of pretraining, CTC and classification, and the vector that replaced frames in training.
UNUSED = ('lm_head.*', 'quantizer.*', 'project_hid.*', 'project_q.*', 'projector.*', 'classifier.*', 'layer_weights')
UNUSED_INSIDE = ('masked_spec_embed',)


def wav2vec2(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.Wav2Vec2` with the weights of a wav2vec 2.0, XLSR or XLS-R of `transformers`.

    Args:
      path: a folder as model hubs lay it out, or a file of weights beside its `config.json`.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.Wav2Vec2` beside those that the configuration tells, such as `dropout_rate`.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    config = read_config(weights.file) if config is None else config
    arguments = {**configured(path, config, 'wav2vec2', keys=KEYS, absent=ABSENT, only=ONLY), **fields}
    encoder = construct('Wav2Vec2', Wav2Vec2, arguments)
    names = wav2vec2_names(
        encoder,
        prefix=prefix_of(path, weights, STEM, 'wav2vec 2.0'),
        old_names=any(name.endswith(f'.{OLD_NAMES[0]}') for name in weights),
    )
    samples = (1, encoder.receptive_field)
    example = Ragged(jax.ShapeDtypeStruct(samples, jnp.float32), jax.ShapeDtypeStruct(samples, jnp.bool_))
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return make_tower(encoder, example, names, weights.file, weights=weights, **options)


def wav2vec2_names(encoder: Wav2Vec2, *, prefix: str = '', old_names: bool = False) -> NameTable:
    """Returns the table of names of a wav2vec 2.0.

    Args:
      encoder: the module.
      prefix: what stands before every name, such as 'wav2vec2.' in a model with a head.
      old_names: whether the kernel of the positions is named as by PyTorch before 2.0, `weight_g` and `weight_v`.
    """

    def layer(original: str, path: str, *, bias: bool = True) -> list[Entry]:
        return layer_entries(f'{prefix}{original}', path, encoder.num_heads, bias=bias)

    entries = []
    for index in range(len(encoder.conv_widths)):
        original = f'feature_extractor.conv_layers.{index}'
        entries += layer(f'{original}.conv', f'conv_{index}', bias=encoder.conv_bias)
        if encoder.conv_norm == 'layer' or index == 0:
            entries += layer(f'{original}.layer_norm', f'conv_{index}_norm')
    for original, place in OUTSIDE.items():
        entries += layer(original, place)
    positions = f'{prefix}encoder.pos_conv_embed.conv'
    scale, direction = OLD_NAMES if old_names else NEW_NAMES
    entries += [
        Entry(f'{positions}.{scale}', 'position_conv/scale', TAPS),
        Entry(f'{positions}.{direction}', 'position_conv/kernel', CONV),
        Entry(f'{positions}.bias', 'position_conv/bias'),
    ]
    for index in range(encoder.depth):
        for original, place in LAYER.items():
            entries += layer(f'encoder.layers.{index}.{original}', f'layer_{index}/{place}')
    return NameTable(tuple(entries), unused=(*UNUSED, *(prefix + name for name in UNUSED_INSIDE)))
