"""The configs of pictures as they stand, but for what makes them expensive, on made-up examples in a folder."""

import importlib
import pathlib

import numpy as np
from ml_collections import ConfigDict

from tests.data import generated

SIDE = 64
SMALL_ENCODERS = {
    'ImageResNet': {'width': 8, 'stage_sizes': (1, 1), 'stage_widths': (8, 8), 'patch': 4},
    # Two blocks of the kind of the depth, with four channels.
    'ResNet': {'width': 8, 'stage_sizes': (1, 1), 'base_width': 4},
}
# Config -> what its data set is made of.
SETS = {
    'pets': {'oxford_iiit_pet': generated.pets},
    'cifar10': {'cifar10': lambda number: generated.cifar(number, label=10)},
    'coco': {'coco/2017': generated.coco},
    'voc': {'voc/2012': generated.voc},
    'nyu': {'nyu_depth_v2': lambda number: generated.nyu(2)},
    'cityscapes': {
        'cityscapes/semantic_segmentation': lambda number: generated.cityscapes(2),
        'cityscapes/stereo_disparity': lambda number: generated.stereo(2),
    },
}
SETS['coco_study'] = SETS['coco']


def write(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the folder with the data sets of a config, each split of ten examples or two."""
    for tfds_name, examples in SETS[name].items():
        generated.write(tfds_name, folder, {split: examples(10) for split in ('train', 'validation', 'test')})
    return folder


def write_arrays(folder: pathlib.Path, height: int = 24, width: int = 32) -> pathlib.Path:
    """Returns the folder with NYUv2 and Cityscapes as MTAN prepared them, two examples a split."""
    for split in ('train', 'val'):
        for name, part in (('nyu', 'label'), ('cityscapes', 'label_7')):
            for number in range(2):
                rng = np.random.default_rng(number)
                label = rng.integers(-1, 7, size=(height, width)).astype(np.float32)
                values = {
                    'image': rng.uniform(size=(height, width, 3)),
                    part: label,
                    'depth': rng.uniform(0.5, 3, size=(height, width, 1)).astype(np.float32),
                    'normal': rng.normal(size=(height, width, 3)).astype(np.float32),
                }
                for key, value in values.items():
                    (folder / name / split / key).mkdir(parents=True, exist_ok=True)
                    np.save(folder / name / split / key / f'{number}.npy', value)
    return folder


def get_config(arg: str) -> ConfigDict:
    """Returns a small config; `arg` is `<config>:<its argument>|<folder of the data>`."""
    which, _, folder = arg.partition('|')
    name, _, variant = which.partition(':')
    config = importlib.import_module(f'configs.{name}').get_config(variant).unlock()
    source = config.data.sources[0]
    if variant == 'scenes':
        source['data_dir'] = folder
        source['builder_kwargs'] |= {'num_train': 12, 'num_validation': 4, 'num_test': 4}
    elif variant == 'mtan':
        source['builder_kwargs']['folder'] = f'{folder}/{name}'
    elif name == 'cityscapes':
        source['builder_kwargs']['data_dir'] = folder
    else:
        source['data_dir'] = folder
    if name in ('coco', 'coco_study', 'voc') and variant == '':
        # Of ten examples a tenth may be one without objects, and there is no fiftieth.
        config.data.splits.update({'train': 'train[:60%]', 'validation': 'train[60%:]'})
    steps = [step for key in ('steps', 'augment') for step in config.data.get(key, ()) if 'size' in step]
    tasks = [task for task in config.tasks.values() if 'size' in task]
    if variant != 'scenes':
        shape = (24, 32) if variant == 'mtan' else (32, 64)
        for sized in (*(step for step in steps if step['name'] != 'place_on_canvas'), *tasks):
            sized['size'] = shape if isinstance(sized['size'], tuple) else SIDE
    for task in config.tasks.values():
        task.update({field: 8 for field in ('width',) if field in task})
    config.data.update({'batch_size': 2, 'eval_batch_size': 2, 'num_workers': 0, 'num_threads': 1})
    config.encoders.image.update(SMALL_ENCODERS[config.encoders.image.name])
    config.fusion.width = config.sharing.width = 8
    config.training.update({'num_steps': 2, 'log_every': 1, 'eval_every': 2, 'num_devices': 1})
    config.balancing.record_every = None
    config.results.update({'num_samples': 2, 'num_features': 0})
    return config.lock()
