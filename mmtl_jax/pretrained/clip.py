"""CLIP's two towers: from the names of `transformers` to `encoders.CLIPImage` and `encoders.CLIPText`.

One file holds both; what belongs to the other tower is unused, so that an export gives the whole file back.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.encoders import CLIPImage, CLIPText
from mmtl_jax.pretrained.cache import Weights, open_weights
from mmtl_jax.pretrained.image import image_tower
from mmtl_jax.pretrained.names import DENSE, Entry, NameTable, leading
from mmtl_jax.pretrained.originals import layer_entries, prefix_of
from mmtl_jax.pretrained.preprocessing import pixel_fields
from mmtl_jax.pretrained.tower import Tower, make_projected_tower
from mmtl_jax.pretrained.weights import read_config

# Field of the encoder -> key of the original configuration, and what the original library takes where it is absent.
SHARED_KEYS = {
    'depth': ('num_hidden_layers', 12),
    'epsilon': ('layer_norm_eps', 1e-5),
    'activation': ('hidden_act', 'quick_gelu'),
}
IMAGE_KEYS = {
    'patch': ('patch_size', 32),
    'image_size': ('image_size', 224),
    'hidden_width': ('hidden_size', 768),
    'num_heads': ('num_attention_heads', 12),
    'mlp_width': ('intermediate_size', 3072),
    **SHARED_KEYS,
}
TEXT_KEYS = {
    'vocab_size': ('vocab_size', 49408),
    'hidden_width': ('hidden_size', 512),
    'num_heads': ('num_attention_heads', 8),
    'mlp_width': ('intermediate_size', 2048),
    'max_length': ('max_position_embeddings', 77),
    'end_id': ('eos_token_id', 49407),
    **SHARED_KEYS,
}
# Said by the first configurations that were published, and wrong: the original then takes the highest id.
WRONG_END_ID = 2
IMAGE_STEM, TEXT_STEM = 'embeddings.patch_embedding.weight', 'embeddings.token_embedding.weight'
IMAGE_PROJECTION, TEXT_PROJECTION = 'visual_projection.weight', 'text_projection.weight'
SCALE = 'logit_scale'
LAYER = {
    'layer_norm1': 'attention_norm',
    'self_attn.q_proj': 'attention/query',
    'self_attn.k_proj': 'attention/key',
    'self_attn.v_proj': 'attention/value',
    'self_attn.out_proj': 'attention/out',
    'layer_norm2': 'mlp_norm',
    'mlp.fc1': 'mlp_in',
    'mlp.fc2': 'mlp_out',
}
UNUSED = (SCALE, 'classifier.*', '*embeddings.position_ids')


def clip_image(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.CLIPImage` with the weights of a CLIP's vision tower.

    Args:
      path: a folder as model hubs lay it out, or a file of weights beside its `config.json`: a whole CLIP, or its
        vision tower with or without the projection into the shared space.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of the projection to `width`, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.CLIPImage`. By default `width` is None, the embedding in the shared space;
        `shared_width=None` leaves that space out.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    config = read_config(weights.file) if config is None else config
    sizes = _sizes(path, config, 'vision', weights, IMAGE_KEYS)
    for name in ('patch', 'image_size'):
        if not isinstance(sizes[name], int):
            raise ValueError(f'{path} is a CLIP with {name}={sizes[name]!r}; encoders.CLIPImage has squares.')
    arguments = {'width': None, **sizes, **pixel_fields(weights.file), **fields}
    encoder = construct('CLIPImage', CLIPImage, arguments)
    names = clip_image_names(encoder, prefix=prefix_of(path, weights, IMAGE_STEM, 'vision tower of a CLIP'))
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return image_tower(encoder, names, weights.file, weights=weights, **options)


def clip_text(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.CLIPText` with the weights of a CLIP's text tower.

    Args:
      path: a folder as model hubs lay it out, or a file of weights beside its `config.json`: a whole CLIP, or its text
        tower with or without the projection into the shared space.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of the projection to `width`, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.CLIPText`. By default `width` is None, the embedding in the shared space;
        `shared_width=None` leaves that space out.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    config = read_config(weights.file) if config is None else config
    sizes = _sizes(path, config, 'text', weights, TEXT_KEYS)
    if not isinstance(sizes['end_id'], int) or sizes['end_id'] == WRONG_END_ID:
        sizes['end_id'] = None
    arguments = {'width': None, **sizes, **fields}
    encoder = construct('CLIPText', CLIPText, arguments)
    names = clip_text_names(encoder, prefix=prefix_of(path, weights, TEXT_STEM, 'text tower of a CLIP'))
    example = Ragged(jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((1, 1), jnp.bool_))
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return make_projected_tower(encoder, example, names, weights.file, weights=weights, **options)


def clip_logit_scale(tower: Tower) -> float:
    """Returns what the cosine of an image's and a text's embedding is multiplied by, exp(`logit_scale`).

    Args:
      tower: either of a whole CLIP; its encoder has no place for the number, so it is among `tower.unused`.

    Raises:
      ValueError: the weights came without it.
    """
    if SCALE not in tower.unused:
        raise ValueError(f'{tower.source} holds no {SCALE}, so it is one tower of a CLIP; give the file of both.')
    return math.exp(float(tower.unused[SCALE]))


def clip_image_names(encoder: CLIPImage, *, prefix: str = 'vision_model.') -> NameTable:
    """Returns the table of names of CLIP's vision tower; `prefix` stands before every name but the projection's."""
    entries = [
        Entry(f'{prefix}embeddings.class_embedding', 'class_token', leading(2)),
        Entry(f'{prefix}embeddings.position_embedding.weight', 'position_embedding', leading(1)),
        *layer_entries(f'{prefix}{IMAGE_STEM.removesuffix(".weight")}', 'patch_embedding', bias=False),
        # Misspelt in the original.
        *layer_entries(f'{prefix}pre_layrnorm', 'embedding_norm'),
        *layer_entries(f'{prefix}post_layernorm', 'norm'),
        *_layers(encoder, prefix),
    ]
    return _table(encoder, entries, IMAGE_PROJECTION, ('text_model.*', TEXT_PROJECTION))


def clip_text_names(encoder: CLIPText, *, prefix: str = 'text_model.') -> NameTable:
    """Returns the table of names of CLIP's text tower; `prefix` stands before every name but the projection's."""
    entries = [
        Entry(f'{prefix}{TEXT_STEM}', 'word_embedding/embedding'),
        Entry(f'{prefix}embeddings.position_embedding.weight', 'position_embedding/embedding'),
        *layer_entries(f'{prefix}final_layer_norm', 'norm'),
        *_layers(encoder, prefix),
    ]
    return _table(encoder, entries, TEXT_PROJECTION, ('vision_model.*', IMAGE_PROJECTION))


def _layers(encoder: nn.Module, prefix: str) -> list[Entry]:
    return [
        entry
        for index in range(encoder.depth)
        for original, place in LAYER.items()
        for entry in layer_entries(
            f'{prefix}encoder.layers.{index}.{original}', f'layer_{index}/{place}', encoder.num_heads
        )
    ]


def _table(encoder: nn.Module, entries: list[Entry], projection: str, other_tower: tuple[str, ...]) -> NameTable:
    """Returns the table with the projection into the shared space, or without one."""
    if encoder.shared_width is None:
        return NameTable(tuple(entries), unused=(*UNUSED, *other_tower, projection))
    last = Entry(projection, 'shared_projection/kernel', DENSE)
    return NameTable((*entries, last), unused=(*UNUSED, *other_tower))


def _sizes(
    path: str | Path, config: Mapping[str, Any], part: str, weights: Weights, keys: Mapping[str, tuple[str, Any]]
) -> dict[str, Any]:
    """Returns the fields of a tower that the configuration tells, of a whole CLIP or of one part."""
    kind, alone = config.get('model_type'), f'clip_{part}_model'
    if kind not in ('clip', alone):
        raise ValueError(
            f'{path} is a model of type {kind!r}; pretrained.clip_{"image" if part == "vision" else part} reads clip '
            f'and {alone}.'
        )
    section = config.get(f'{part}_config') or {} if kind == 'clip' else config
    projection = IMAGE_PROJECTION if part == 'vision' else TEXT_PROJECTION
    shared = config.get('projection_dim', 512) if kind == 'clip' or projection in weights else None
    return {**{field: section.get(name, default) for field, (name, default) in keys.items()}, 'shared_width': shared}
