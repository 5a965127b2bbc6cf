"""ResNet-18, 34, 50 and 101: from the names of torchvision and of `transformers` to `encoders.ResNet`."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array
from mmtl_jax.encoders import ResNet
from mmtl_jax.encoders.resnet import FIRST_BOTTLENECK, STAGE_SIZES
from mmtl_jax.pretrained.cache import Weights, open_weights
from mmtl_jax.pretrained.image import COUNTERS, batch_norm_entries, conv_entry, image_tower
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.preprocessing import pixel_fields
from mmtl_jax.pretrained.tower import Tower
from mmtl_jax.pretrained.weights import read_config

# The stem's convolution tells whose names a file has, and what stands before them.
STEMS = {'torchvision': 'conv1.weight', 'transformers': 'embedder.embedder.convolution.weight'}
UNUSED = (COUNTERS, 'fc.*', 'classifier.*')
# What a configuration may say and the encoder does; published models say nothing else.
ONLY = {'hidden_act': 'relu', 'downsample_in_first_stage': False, 'downsample_in_bottleneck': False}


def resnet(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.ResNet` with the weights of a ResNet of torchvision or of `transformers`.

    Args:
      path: a file of weights, or a folder as model hubs lay it out. Without a `config.json` the names and shapes tell
        the depth.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of a projection, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.ResNet`. By default `width` is None, the channels of the last map, and `norm` is
        'frozen'.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    library, prefix = _origin(path, weights)
    if config is None:
        config = read_config(weights.file) if (weights.file.parent / 'config.json').is_file() else {}
    arguments = {'width': None, 'norm': 'frozen', **pixel_fields(weights.file)}
    arguments |= _sizes(path, weights, config, f'{prefix}{STEMS[library]}') if 'depth' not in fields else {}
    arguments |= fields
    encoder = construct('ResNet', ResNet, arguments)
    names = resnet_names(encoder, library, prefix=prefix)
    options = {'config': config, 'strict': strict, 'ignore': ignore, 'key': key}
    return image_tower(encoder, names, weights.file, weights=weights, **options)


def resnet_names(encoder: ResNet, library: str = 'torchvision', *, prefix: str = '') -> NameTable:
    """Returns the table of names of a ResNet.

    Args:
      encoder: the module.
      library: 'torchvision' or 'transformers'.
      prefix: what stands before every name, such as 'resnet.' in a model with a classifier.
    """
    there = library == 'transformers'
    bottleneck = encoder.depth >= FIRST_BOTTLENECK

    def convolution(conv: str, norm: str, path: str, place: tuple[str, str]) -> list[Entry]:
        conv_path, norm_path = (f'{path}{name}' for name in place)
        return [conv_entry(f'{prefix}{conv}', conv_path), *batch_norm_entries(f'{prefix}{norm}', norm_path)]

    stem = ('embedder.embedder.convolution', 'embedder.embedder.normalization') if there else ('conv1', 'bn1')
    entries = convolution(*stem, '', ('stem_conv', 'stem_norm'))
    for stage, blocks in enumerate(encoder.stage_sizes or STAGE_SIZES[encoder.depth]):
        for block in range(blocks):
            outer = f'encoder.stages.{stage}.layers.{block}' if there else f'layer{stage + 1}.{block}'
            path = f'stage{stage + 1}_block{block + 1}/'
            for i in range(3 if bottleneck else 2):
                inner = f'{outer}.layer.{i}'
                pair = (f'{inner}.convolution', f'{inner}.normalization')
                pair = pair if there else (f'{outer}.conv{i + 1}', f'{outer}.bn{i + 1}')
                entries += convolution(*pair, path, (f'conv{i + 1}', f'norm{i + 1}'))
            if block == 0 and (stage > 0 or bottleneck):
                pair = (f'{outer}.shortcut.convolution', f'{outer}.shortcut.normalization')
                pair = pair if there else (f'{outer}.downsample.0', f'{outer}.downsample.1')
                entries += convolution(*pair, path, ('shortcut_conv', 'shortcut_norm'))
    return NameTable(tuple(entries), unused=(*UNUSED, f'{prefix}fc.*'))


def _origin(path: str | Path, weights: Weights) -> tuple[str, str]:
    """Returns whose names the weights have, and what stands before each."""
    for library, stem in STEMS.items():
        # Blocks have a conv1 too, but only the stem's kernel has this size.
        found = [name for name in weights if name == stem or name.endswith(f'.{stem}')]
        found = [name for name in found if weights.shapes[name][2:] == (7, 7)]
        if found:
            return library, found[0].removesuffix(stem)
    raise ValueError(f'{path} holds no ResNet: there is no 7x7 kernel {" or ".join(STEMS.values())} in it.')


def _sizes(path: str | Path, weights: Weights, config: Mapping[str, Any], stem: str) -> dict[str, Any]:
    """Returns the fields that tell the size, from the configuration or else from the names.

    Names alone are believed only where they give a published size: a file without its last blocks is not one.
    """
    for name, value in ONLY.items():
        if config.get(name, value) != value:
            raise ValueError(f'{path} is a ResNet with {name}={config[name]!r}; encoders.ResNet has {value!r}.')
    bottleneck = any(name.endswith(('.conv3.weight', '.layer.2.convolution.weight')) for name in weights)
    counts = {}
    for name in weights:
        if found := re.search(r'(?:^|\.)(?:layer|encoder\.stages\.)(\d+)\.(?:layers\.)?(\d+)\.', name):
            stage, block = map(int, found.groups())
            counts[stage] = max(counts.get(stage, 0), block + 1)
    sizes = tuple(config.get('depths', [counts[stage] for stage in sorted(counts)]))
    base_width = weights.shapes[stem][0]
    for depth, published in STAGE_SIZES.items():
        if sizes == published and bottleneck == (depth >= FIRST_BOTTLENECK):
            return {'depth': depth, 'base_width': base_width}
    if 'depths' in config:
        return {'depth': FIRST_BOTTLENECK if bottleneck else 18, 'stage_sizes': sizes, 'base_width': base_width}
    raise ValueError(
        f'{path} holds stages of {sizes} blocks, which is no published ResNet; give depth= and stage_sizes=, or get '
        'the file again.'
    )
