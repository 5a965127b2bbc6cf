"""TFDS data sets; importing this package makes their names known to `tfds.builder` and `tfds.data_source`."""

import logging

from mmtl_jax.data.builders.multi_mnist import MultiMNIST, MultiMNISTConfig
from mmtl_jax.data.builders.stamp_scenes import StampScenes, StampScenesConfig
from mmtl_jax.data.builders.stamps import Stamps, StampsConfig
from mmtl_jax.data.builders.synthetic import Synthetic, SyntheticConfig

__all__ = [
    'MultiMNIST',
    'MultiMNISTConfig',
    'StampScenes',
    'StampScenesConfig',
    'Stamps',
    'StampsConfig',
    'Synthetic',
    'SyntheticConfig',
]

# TFDS advises OpenCV whenever it reads a picture, though Pillow is fast enough, and it misses the files of a data set
# that it is about to prepare: nothing that a user should act on.
NEEDLESS = ('OpenCV is not installed', 'Variant folder %s has no %s')
logging.getLogger('absl').addFilter(lambda record: not str(record.msg).strip().startswith(NEEDLESS))
