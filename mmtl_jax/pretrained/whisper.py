"""Whisper's encoder: from the names of `transformers` to `encoders.Whisper`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.encoders import Whisper
from mmtl_jax.pretrained.cache import open_weights
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.originals import layer_entries, prefix_of
from mmtl_jax.pretrained.speech import configured
from mmtl_jax.pretrained.tower import Tower, make_tower
from mmtl_jax.pretrained.weights import read_config

# Field of `encoders.Whisper` -> key of the original configuration; and what the original takes where it is absent.
KEYS = {
    'width': 'd_model',
    'depth': 'encoder_layers',
    'num_heads': 'encoder_attention_heads',
    'mlp_width': 'encoder_ffn_dim',
    'max_length': 'max_source_positions',
    'num_mels': 'num_mel_bins',
    'activation': 'activation_function',
}
ABSENT = {'activation': 'gelu'}
STEM = 'encoder.conv1.weight'
# Original name of a layer's part, and its place in `layer_<i>`.
LAYER = {
    'self_attn.q_proj': 'attention/query',
    'self_attn.k_proj': 'attention/key',
    'self_attn.v_proj': 'attention/value',
    'self_attn.out_proj': 'attention/out',
    'self_attn_layer_norm': 'attention_norm',
    'fc1': 'mlp_in',
    'fc2': 'mlp_out',
    'final_layer_norm': 'mlp_norm',
}
# The heads of transcription and classification.
UNUSED = ('proj_out.*', 'projector.*', 'classifier.*', 'layer_weights')
UNUSED_INSIDE = ('decoder.*',)


def whisper(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.Whisper` with the encoder's weights of a Whisper of `transformers`; the decoder is unused.

    Args:
      path: a folder as model hubs lay it out, or a file of weights beside its `config.json`.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.Whisper` beside those that the configuration tells, such as `dropout_rate`.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    config = read_config(weights.file) if config is None else config
    arguments = {**configured(path, config, 'whisper', keys=KEYS, absent=ABSENT, only={}), **fields}
    encoder = construct('Whisper', Whisper, arguments)
    names = whisper_names(encoder, prefix=prefix_of(path, weights, STEM, 'Whisper'))
    example = Ragged(
        jax.ShapeDtypeStruct((1, 2, encoder.num_mels), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.bool_)
    )
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return make_tower(encoder, example, names, weights.file, weights=weights, **options)


def whisper_names(encoder: Whisper, *, prefix: str = '') -> NameTable:
    """Returns the table of names of a Whisper's encoder.

    Args:
      encoder: the module.
      prefix: what stands before every name, such as 'model.' in a model with a head.
    """

    def layer(original: str, path: str, *, bias: bool = True) -> list[Entry]:
        return layer_entries(f'{prefix}encoder.{original}', path, encoder.num_heads, bias=bias)

    entries = [*layer('conv1', 'conv_1'), *layer('conv2', 'conv_2'), *layer('layer_norm', 'norm')]
    entries.append(Entry(f'{prefix}encoder.embed_positions.weight', 'fixed_position_embedding'))
    for index in range(encoder.depth):
        for original, place in LAYER.items():
            bias = not place.endswith('key')
            entries += layer(f'layers.{index}.{original}', f'layer_{index}/{place}', bias=bias)
    return NameTable(tuple(entries), unused=(*UNUSED, *(prefix + name for name in UNUSED_INSIDE)))
