"""What the converters of image towers share: batch statistics, pixels, the classifier and a projection on top."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import PyTree
from mmtl_jax.heads import Classification
from mmtl_jax.pretrained.names import CONV, Entry, NameTable
from mmtl_jax.pretrained.tower import Tower, make_projected_tower

EXAMPLE_SIDE = 32
COUNTERS = '*.num_batches_tracked'
# Where `ResNetForImageClassification`, torchvision, EfficientNet-lite and `ViTForImageClassification` keep it.
CLASSIFIERS = ('classifier.1', 'fc', '_fc', 'classifier')


def conv_entry(original: str, path: str) -> Entry:
    """Returns where the kernel of a convolution goes, one of each channel alone included."""
    return Entry(f'{original}.weight', f'{path}/kernel', CONV)


def batch_norm_entries(original: str, path: str) -> list[Entry]:
    """Returns where scale, bias and running statistics go."""
    return [
        Entry(f'{original}.weight', f'{path}/scale'),
        Entry(f'{original}.bias', f'{path}/bias'),
        Entry(f'{original}.running_mean', f'batch_stats/{path}/mean'),
        Entry(f'{original}.running_var', f'batch_stats/{path}/var'),
    ]


def image_tower(encoder: nn.Module, names: NameTable, path: str | Path, **options: Any) -> Tower:
    """Returns what `make_projected_tower` does.

    Raises:
      ValueError: the weights do not fit, or the encoder keeps no running statistics.
    """
    if getattr(encoder, 'norm', None) == 'group':
        raise ValueError(
            f"{type(encoder).__name__}: norm='group' has no place for the running statistics of {path}; give 'frozen' "
            "or 'batch'."
        )
    example = jax.ShapeDtypeStruct((1, EXAMPLE_SIDE, EXAMPLE_SIDE, 3), jnp.float32)
    return make_projected_tower(encoder, example, names, path, **options)


def image_classifier(tower: Tower) -> tuple[Classification, PyTree]:
    """Returns the head that was published with an image tower, and its parameters.

    It reads the features of a tower with `width=None` and the default pooling:
    `head.apply({'params': params}, features, train=False)` are the logits of the original classes.

    Raises:
      ValueError: the weights came without a classifier.
    """
    for name in CLASSIFIERS:
        if f'{name}.weight' in tower.unused:
            kernel, bias = tower.unused[f'{name}.weight'].T, tower.unused[f'{name}.bias']
            params: Mapping[str, Any] = {'kernel': np.ascontiguousarray(kernel), 'bias': bias}
            return Classification(num_classes=len(bias)), {'Readout_0': {'Dense_0': params}}
    raise ValueError(f'{tower.source} holds no linear classifier on top of its tower; train a head of your own.')
