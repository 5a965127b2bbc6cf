"""Vision transformers: from the names of `transformers` and of timm to `encoders.ViT`."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array
from mmtl_jax.encoders import ViT
from mmtl_jax.pretrained.cache import Weights, open_weights
from mmtl_jax.pretrained.image import image_tower
from mmtl_jax.pretrained.names import Entry, NameTable, heads_in, split
from mmtl_jax.pretrained.originals import layer_entries
from mmtl_jax.pretrained.preprocessing import pixel_fields
from mmtl_jax.pretrained.tower import Tower
from mmtl_jax.pretrained.weights import read_config

# Field of `encoders.ViT` -> key of the original configuration.
KEYS = {
    'patch': 'patch_size',
    'image_size': 'image_size',
    'hidden_width': 'hidden_size',
    'depth': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'mlp_width': 'intermediate_size',
    'epsilon': 'layer_norm_eps',
}
# What a configuration may say and the encoder does.
ONLY = {'hidden_act': 'gelu', 'qkv_bias': True}
# The kernel of the patches tells whose names a file has, and what stands before them.
STEMS = {'timm': 'patch_embed.proj.weight', 'transformers': 'embeddings.patch_embeddings.projection.weight'}
LAYER = {
    'transformers': {
        'layernorm_before': 'attention_norm',
        'attention.attention.query': 'attention/query',
        'attention.attention.key': 'attention/key',
        'attention.attention.value': 'attention/value',
        'attention.output.dense': 'attention/out',
        'layernorm_after': 'mlp_norm',
        'intermediate.dense': 'mlp_in',
        'output.dense': 'mlp_out',
    },
    'timm': {
        'norm1': 'attention_norm',
        'attn.qkv': ('attention/query', 'attention/key', 'attention/value'),
        'attn.proj': 'attention/out',
        'norm2': 'mlp_norm',
        'mlp.fc1': 'mlp_in',
        'mlp.fc2': 'mlp_out',
    },
}
# All published sizes have heads of this width; timm's files do not tell.
HEAD_WIDTH = 64
UNUSED = ('classifier.*', 'head.*')
UNUSED_INSIDE = ('pooler.*', 'embeddings.mask_token')


def vit(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.ViT` with the weights of a ViT of `transformers` or of timm.

    Args:
      path: a folder as model hubs lay it out, or a file of weights. A file without a `config.json` beside it is taken
        as timm's, where shapes tell the sizes and heads are 64 wide.
      config: what `config.json` of `transformers` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of a projection, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.ViT`, such as `mean` and `deviation` for weights that were trained with those of
        ImageNet. By default `width` is None, the hidden states.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    library, prefix = _origin(path, weights)
    if config is None and library == 'transformers':
        config = read_config(weights.file)
    sizes = _configured(path, config) if library == 'transformers' else _measured(path, weights, prefix)
    arguments = {'width': None, **sizes, **pixel_fields(weights.file), **fields}
    encoder = construct('ViT', ViT, arguments)
    if config is None and (weights.file.parent / 'config.json').is_file():
        # timm's own, kept for an export.
        config = read_config(weights.file)
    names = vit_names(encoder, library, prefix=prefix)
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return image_tower(encoder, names, weights.file, weights=weights, **options)


def vit_names(encoder: ViT, library: str = 'transformers', *, prefix: str = '') -> NameTable:
    """Returns the table of names of a ViT.

    Args:
      encoder: the module.
      library: 'transformers' or 'timm'.
      prefix: what stands before every name, such as 'vit.' in a model with a classifier.
    """

    def layer(original: str, places: str | tuple[str, ...], path: str = '') -> list[Entry]:
        if isinstance(places, str):
            return layer_entries(f'{prefix}{original}', f'{path}{places}', encoder.num_heads)
        layout = split(len(places), heads_in(encoder.num_heads))
        return [
            Entry(f'{prefix}{original}.{part}', tuple(f'{path}{place}/{leaf}' for place in places), layout)
            for part, leaf in (('weight', 'kernel'), ('bias', 'bias'))
        ]

    there = library == 'transformers'
    first, positions = (
        ('embeddings.cls_token', 'embeddings.position_embeddings') if there else ('cls_token', 'pos_embed')
    )
    entries = [Entry(prefix + first, 'class_token'), Entry(prefix + positions, 'position_embedding')]
    entries += layer(STEMS[library].removesuffix('.weight'), 'patch_embedding')
    entries += layer('layernorm' if there else 'norm', 'norm')
    for index in range(encoder.depth):
        for original, places in LAYER[library].items():
            entries += layer(f'{"encoder.layer" if there else "blocks"}.{index}.{original}', places, f'layer_{index}/')
    return NameTable(tuple(entries), unused=(*UNUSED, *(prefix + name for name in UNUSED_INSIDE)))


def _origin(path: str | Path, weights: Weights) -> tuple[str, str]:
    """Returns whose names the weights have, and what stands before each."""
    for library, stem in STEMS.items():
        for name in weights:
            if name == stem or name.endswith(f'.{stem}'):
                return library, name.removesuffix(stem)
    raise ValueError(f'{path} holds no ViT: there is neither {" nor ".join(STEMS.values())} in it.')


def _configured(path: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that tell the size, from the configuration."""
    if config.get('model_type', 'vit') != 'vit':
        raise ValueError(f'{path} is a model of type {config["model_type"]!r}; pretrained.vit reads vit.')
    for name, value in ONLY.items():
        if config.get(name, value) != value:
            raise ValueError(f'{path} is a ViT with {name}={config[name]!r}; encoders.ViT has {value!r}.')
    lost = [name for name in KEYS.values() if name not in config]
    if lost:
        raise ValueError(f'the configuration of {path} lacks {lost[0]!r}; get its config.json again.')
    return {field: config[name] for field, name in KEYS.items()}


def _measured(path: str | Path, weights: Weights, prefix: str) -> dict[str, Any]:
    """Returns the fields that tell the size, from the shapes in a file of timm."""
    names = [f'{prefix}{name}' for name in (STEMS['timm'], 'pos_embed', 'blocks.0.mlp.fc1.weight')]
    lost = [name for name in names if name not in weights]
    if lost:
        raise ValueError(f'{path} holds no whole ViT: {lost[0]} is missing; get the file again.')
    kernel, positions, mlp = (weights.shapes[name] for name in names)
    layers = {int(found[1]) for name in weights if (found := re.match(rf'{re.escape(prefix)}blocks\.(\d+)\.', name))}
    width, _, patch, _ = kernel
    return {
        'patch': patch,
        'image_size': patch * math.isqrt(positions[1] - 1),
        'hidden_width': width,
        'depth': max(layers) + 1,
        'num_heads': max(width // HEAD_WIDTH, 1),
        'mlp_width': mlp[0],
    }
