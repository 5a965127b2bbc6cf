"""VGG16, plain or with BatchNorm: from the names of torchvision to `encoders.VGG16`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array
from mmtl_jax.encoders import VGG16
from mmtl_jax.pretrained.cache import open_weights
from mmtl_jax.pretrained.image import COUNTERS, batch_norm_entries, conv_entry, image_tower
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.tower import Tower

STEM = 'features.0.weight'
# The three dense layers; an export holds them again.
UNUSED = (COUNTERS, 'classifier.*')


def vgg16(
    path: str | Path,
    *,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.VGG16` with the convolutions of a VGG16 of torchvision, `vgg16` or `vgg16_bn`.

    Args:
      path: a file of weights.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of a projection, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.VGG16`. By default `width` is None, the channels of the last map, and `norm` is
        'frozen' where the weights have running statistics.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    if weights.shapes.get(STEM, ())[2:] != (3, 3):
        raise ValueError(f'{path} holds no VGG16: there is no 3x3 kernel {STEM} in it.')
    norm = 'frozen' if any(name.endswith('running_mean') for name in weights) else None
    arguments = {'width': None, 'norm': norm, **fields}
    encoder = construct('VGG16', VGG16, arguments)
    return image_tower(
        encoder, vgg16_names(encoder), weights.file, weights=weights, strict=strict, ignore=ignore, key=key
    )


def vgg16_names(encoder: VGG16) -> NameTable:
    """Returns the table of names of a VGG16; the original counts every layer, ReLU and pooling included."""
    entries, number = [], 0
    for stage, layers in enumerate(encoder.stage_sizes, start=1):
        for i in range(1, layers + 1):
            path = f'stage{stage}_conv{i}'
            entries += [conv_entry(f'features.{number}', path), Entry(f'features.{number}.bias', f'{path}/bias')]
            if encoder.norm is not None:
                entries += batch_norm_entries(f'features.{number + 1}', f'stage{stage}_norm{i}')
            number += 2 if encoder.norm is None else 3
        number += 1
    return NameTable(tuple(entries), unused=UNUSED)
