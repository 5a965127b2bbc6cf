"""Two tasks of Cityscapes: segmentation, and depth as disparity.

    python -m mmtl_jax.train --config=configs/cityscapes.py --workdir=runs/cityscapes

trains a ResNet-50 with both heads on the 2,975 street scenes with fine annotations of Cityscapes (Cordts et al. 2016,
1604.01685) at 128 x 256 pixels: 19 classes, and the disparity of the stereo camera in pixels of that picture. TFDS has
the classes in `cityscapes/semantic_segmentation` and the disparity in `cityscapes/stereo_disparity`; they are joined by
the picture's name. It needs TensorFlow to prepare them, on any machine, and files that a person must download, with a
registration: leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip, rightImg8bit_trainvaltest.zip and
disparity_trainvaltest.zip, from https://www.cityscapes-dataset.com into ~/tensorflow_datasets/downloads/manual.

    python -m mmtl_jax.train --config=configs/cityscapes.py:mtan --workdir=runs/cityscapes_mtan

is the same as MTAN (Liu et al. 2019, 1803.10704) prepared it, with 7 classes and inverse depth, which the multi-task
literature reports on. A person must download it, from https://github.com/lorenmt/mtan, into
~/tensorflow_datasets/downloads/manual/cityscapes, so that there are train/image/0.npy, val/label_7/0.npy and so on.

    python -m mmtl_jax.train --config=configs/cityscapes.py:scenes --workdir=runs/cityscapes_scenes

needs no download: sprites of 12 categories and the background, which bulge out of a wall (`depth_of_solids`). It took
16 minutes on one core of an AMD EPYC that other work shared. On the 500 test scenes (seed 0, best checkpoint by
validation):

    segmentation    mIoU .179, pixel accuracy .845, of 13 classes
    depth           absolute error .008, relative error .009, delta1 1.000 (the depths lie close to each other)

The test split of the streets has no annotations, so that the best checkpoint is chosen on what it is reported on, as is
usual there. Cost and result of the published forms: not measured, neither has been trained to the end; the tests run
them from end to end on made-up pictures.
"""

from ml_collections import ConfigDict

from configs import vision

MTAN = 'mtan'
FOLDER = '~/tensorflow_datasets/downloads/manual/cityscapes'
SIZE = (128, 256)
# What is stored is 256 times the disparity in pixels of a picture of 2048, plus 1; 0 is not measured.
DISPARITY = {
    'name': 'scale_depth',
    'key': 'disparity_map',
    'scale': SIZE[1] / 2048 / 256,
    'offset': 1.0,
    'out': 'disparity',
}
# Cityscapes' numbers of the 19 classes that count, in the usual order; all others are ignored.
STREET = {
    'road': 7,
    'sidewalk': 8,
    'building': 11,
    'wall': 12,
    'fence': 13,
    'pole': 17,
    'traffic light': 19,
    'traffic sign': 20,
    'vegetation': 21,
    'terrain': 22,
    'sky': 23,
    'person': 24,
    'rider': 25,
    'car': 26,
    'truck': 27,
    'bus': 28,
    'train': 31,
    'motorcycle': 32,
    'bicycle': 33,
}
# Of the 7 groups of classes, which other authors have made, the names are not given with them.
CLASSES = {
    '': {'num_classes': len(STREET), 'class_names': tuple(STREET)},
    MTAN: {'num_classes': 7},
    vision.SCENES: {'num_classes': len(vision.SCENES_CLASSES), 'class_names': vision.SCENES_CLASSES},
}


def tasks(arg: str, size: int | tuple[int, int]) -> dict:
    """Returns both tasks."""
    head = {'size': size, 'width': 64}
    return {
        'segmentation': {'name': 'segmentation', 'kind': 'cross_entropy', **CLASSES[arg], **head},
        # A share, like the IoU, so that neither outweighs the other in the choice of the best checkpoint.
        'depth': {'name': 'dense_regression', 'of': 'depth', 'primary': 'delta1', **head},
    }


def targets(mask: str, depth: str) -> dict:
    """Returns what both learn from."""
    return {'segmentation': {'key': mask, 'kind': 'mask'}, 'depth': {'key': depth, 'kind': 'depth'}}


def published(arg: str) -> dict:
    """Returns what the section `data` of a published form has of its own."""
    if arg == MTAN:
        keys = {'image': 'image', 'segmentation': 'label_7', 'depth': 'depth'}
        arguments = {'folder': FOLDER, 'keys': keys, 'homepage': 'https://github.com/lorenmt/mtan'}
        layers = {'masks': ('segmentation',), 'depths': ('depth',)}
        return {
            'sources': ({'name': 'mmtl_jax.data.array_folder', 'builder_kwargs': arguments},),
            'splits': {'validation': 'val'},
            'augment': (vision.mirrored_and_shifted(layers), vision.colour()),
            'inputs': {'image': 'image'},
            'targets': targets('segmentation', 'depth'),
        }
    names = ('cityscapes/semantic_segmentation', 'cityscapes/stereo_disparity')
    layers = {'image': 'image_left', 'masks': ('segmentation_label',)}
    return {
        'sources': ({'name': 'mmtl_jax.data.joined', 'builder_kwargs': {'names': names, 'on': 'image_id'}},),
        'steps': (
            {'name': 'map_labels', 'key': 'segmentation_label', 'values': tuple(STREET.values())},
            vision.resized(SIZE, **layers, depths=('disparity_map',)),
            DISPARITY,
        ),
        'augment': (vision.mirrored_and_shifted({**layers, 'depths': ('disparity',)}), vision.colour('image_left')),
        'inputs': {'image': 'image_left'},
        'targets': targets('segmentation_label', 'disparity'),
    }


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '', 'mtan' or 'scenes'."""
    vision.check_argument('cityscapes', arg, tuple(CLASSES))
    if arg == vision.SCENES:
        layers = {'masks': ('segmentation_mask',), 'instances': 'instance_mask'}
        made = ({'name': 'depth_of_solids', 'instances': 'instance_mask'},)
        data = vision.scenes(targets('segmentation_mask', 'depth'), layers, made=made)
        return vision.config_of(data, tasks(arg, size=96))
    data = {'batch_size': 16, **published(arg)}
    return vision.config_of(
        data,
        tasks(arg, SIZE),
        encoder=vision.resnet(depth=50, width=256),
        learning_rate=5e-4,
        training={'num_steps': 20000, 'log_every': 50, 'eval_every': 1000, 'average_decay': 0.998},
        splits=('validation',),
    )
