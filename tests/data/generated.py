"""Generated data in the form of published data sets: TFDS's own builders write the files, fed with made-up examples."""

import sys
import types

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def write(name, folder, splits):
    """Prepares the data set `name` in `folder` from made-up examples, by its real features and TFDS's real writer.

    Args:
      name: a TFDS name.
      folder: the data folder.
      splits: split -> examples as the builder's own generator yields them.
    """
    if name.startswith('coco'):
        # COCO's features are written with TensorFlow's name for int64; to read them needs none.
        import tensorflow_datasets.object_detection.coco as coco

        coco.tf, kept = types.SimpleNamespace(int64=np.int64), coco.tf
        try:
            return _write(name, folder, splits)
        finally:
            coco.tf = kept
    return _write(name, folder, splits)


def _write(name, folder, splits):
    builder = tfds.builder(name, data_dir=str(folder), file_format='array_record')
    if name.startswith('cifar'):
        # In truth read from a file of the download.
        for key in ('label', 'coarse_label'):
            if key in builder.info.features:
                feature = builder.info.features[key]
                feature.names = [f'{key} {number}' for number in range(feature.num_classes)]
    own = {split: list(enumerate(examples)) for split, examples in splits.items()}
    builder._split_generators = types.MethodType(lambda self, manager: {s: iter(e) for s, e in own.items()}, builder)
    assert 'tensorflow' not in sys.modules, 'a test of reading without TensorFlow'
    builder.download_and_prepare(file_format='array_record')
    return builder


def picture(height, width, channels=3, low=0, high=256, seed=0):
    """Returns a picture of noise as PIL has it, so that TFDS encodes it without TensorFlow."""
    pixels = np.random.default_rng(seed).integers(low, high, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def objects(number, classes, **flags):
    """Returns objects as COCO and PASCAL VOC have them, with further values for each."""
    rng = np.random.default_rng(number)
    listed = []
    for index in range(number):
        top, left = rng.uniform(0, 0.5, size=2)
        box = tfds.features.BBox(top, left, top + 0.3, left + 0.4)
        listed.append(
            {'bbox': box, 'label': int(rng.integers(classes)), **flags, **({'id': index} if 'area' in flags else {})}
        )
    return listed


def cifar(number, **labels):
    return [
        {'id': f'train_{n:05d}', 'image': picture(32, 32, seed=n), **{k: n % c for k, c in labels.items()}}
        for n in range(number)
    ]


def coco(number):
    examples = []
    for n in range(number):
        found = objects(n, 80, area=900, is_crowd=False)
        # A crowd, and an annotation without area, as there are some in COCO.
        found += [
            {**objects(1, 80, area=5, is_crowd=True)[0], 'id': 90},
            {**objects(1, 80, area=0, is_crowd=False)[0], 'bbox': tfds.features.BBox(0.1, 0.2, 0.1, 0.4)},
        ]
        examples.append(
            {'image': picture(48 + n, 64, seed=n), 'image/filename': f'{n:012d}.jpg', 'image/id': n, 'objects': found}
        )
    return examples


def voc(number):
    return [
        {
            'image': picture(50, 40 + n, seed=n),
            'image/filename': f'2012_{n:06d}.jpg',
            'objects': objects(n, 20, pose=4, is_truncated=False, is_difficult=n == 2),
            'labels': [n % 20, (n + 3) % 20],
            'labels_no_difficult': [n % 20],
        }
        for n in range(number)
    ]


def pets(number):
    return [
        {
            'image': picture(40 + n, 60, seed=n),
            'label': n % 37,
            'species': n % 2,
            'file_name': f'pug_{n}.jpg',
            'segmentation_mask': picture(40 + n, 60, 1, low=1, high=4, seed=n),
            # The test split has no heads: boxes of nothing.
            'head_bbox': tfds.features.BBox(0.0, 0.0, 0.0, 0.0) if n == 1 else tfds.features.BBox(0.1, 0.2, 0.5, 0.6),
        }
        for n in range(number)
    ]


def cityscapes(number):
    return [
        {
            'image_id': f'bonn_{n:06d}_000019',
            'image_left': Image.new('RGB', (2048, 1024), (n, 80, 120)),
            'segmentation_label': Image.fromarray(np.full((1024, 2048), 7 if n else 3, np.uint8)),
        }
        for n in range(number)
    ]


# Of the rows from 100 on: pixels times 256, plus 1.
STORED_DISPARITY = 1 + 256 * np.arange(924) // 9


def stereo(number):
    """Returns pictures of `cityscapes` in another order, with disparity in PNG of 16 bits."""
    stored = np.zeros((1024, 2048), np.uint16)
    stored[100:] = STORED_DISPARITY[:, None]
    return [
        {
            'image_id': f'bonn_{n:06d}_000019',
            'image_left': Image.new('RGB', (2048, 1024), (n, 80, 120)),
            'image_right': Image.new('RGB', (2048, 1024), (n, 80, 120)),
            'disparity_map': Image.fromarray(stored),
        }
        for n in reversed(range(number))
    ]


def nyu(number):
    depth = np.full((480, 640), 2.5, np.float16)
    depth[:10] = 0
    return [{'image': picture(480, 640, seed=n), 'depth': depth} for n in range(number)]


SETS = {
    'cifar10': lambda: cifar(10, label=10),
    'cifar100': lambda: cifar(10, label=100, coarse_label=20),
    'coco/2017': lambda: coco(4),
    'voc/2012': lambda: voc(4),
    'oxford_iiit_pet': lambda: pets(10),
    'cityscapes': lambda: cityscapes(2),
    'nyu_depth_v2': lambda: nyu(2),
}
