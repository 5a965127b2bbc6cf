"""Three tasks of NYUv2: segmentation, depth and surface normals, with attention of each task on the shared stages.

    python -m mmtl_jax.train --config=configs/nyu.py:mtan --workdir=runs/nyu_mtan

trains a ResNet-50 under `MTAN` (Liu et al. 2019, 1803.10704) on the 795 pictures of NYUv2 (Silberman et al. 2012) that
this paper prepared, 288 x 384 pixels, 13 classes, which the multi-task literature reports on. A person must download
them, from https://github.com/lorenmt/mtan, into ~/tensorflow_datasets/downloads/manual/nyuv2, so that there are
train/image/0.npy, val/normal/0.npy and so on. Nothing moves in training, since normals would have to turn with it.

    python -m mmtl_jax.train --config=configs/nyu.py --workdir=runs/nyu

is what TFDS has by the name `nyu_depth_v2`: 47,584 frames with depth, and no classes. Depth is learnt as it is; the
normals are derived from it by `normals_from_depth`, with the focal length of the Kinect (518.86 pixels of 640); the
segmentation is left out. TFDS downloads 31.9 GiB by itself and needs TensorFlow and h5py to prepare them, on any
machine.

    python -m mmtl_jax.train --config=configs/nyu.py:scenes --workdir=runs/nyu_scenes

needs no download: sprites of 12 categories and the background, which bulge out of a wall (`depth_of_solids`). It took
34 minutes on one core of an AMD EPYC that other work shared. On the 500 test scenes (seed 0, best checkpoint by
validation):

    segmentation    mIoU .182, pixel accuracy .846, of 13 classes
    depth           absolute error .008, relative error .009, delta1 1.000 (the depths lie close to each other)
    normals         angle 7.8 degrees in the mean, .8 in the median; 78.3 % within 11.25 degrees

Neither of the published forms has a test split, so that the best checkpoint is chosen on what it is reported on, as is
usual there. Their cost and result: not measured, neither has been trained to the end; the tests run them from end to
end on made-up pictures.
"""

from ml_collections import ConfigDict

from configs import vision

MTAN = 'mtan'
FOLDER = '~/tensorflow_datasets/downloads/manual/nyuv2'
NUM_CLASSES = 13
SIZE = (288, 384)
SHARING = {'name': 'MTAN'}
NORMALS = {'name': 'normals_from_depth', 'focal': 518.86 / 640}
TARGETS = {
    'segmentation': {'key': 'segmentation_mask', 'kind': 'mask'},
    'depth': {'key': 'depth', 'kind': 'depth'},
    'normals': 'normals',
}


def tasks(
    size: int | tuple[int, int],
    names: tuple[str, ...] = ('segmentation', 'depth', 'normals'),
    class_names: tuple[str, ...] = (),
) -> dict:
    """Returns the tasks that are named."""
    every = {
        'segmentation': {
            'name': 'segmentation',
            'num_classes': NUM_CLASSES,
            'class_names': class_names,
            'kind': 'cross_entropy',
        },
        # Shares, like the IoU: in the mean that chooses the best checkpoint an angle would outweigh all else.
        'depth': {'name': 'dense_regression', 'of': 'depth', 'primary': 'delta1'},
        'normals': {'name': 'dense_regression', 'of': 'normals', 'primary': 'within_11'},
    }
    return {name: {**every[name], 'size': size, 'width': 64} for name in names}


def published(arg: str) -> dict:
    """Returns what the section `data` of a published form has of its own."""
    if arg == MTAN:
        keys = {'image': 'image', 'segmentation_mask': 'label', 'depth': 'depth', 'normals': 'normal'}
        arguments = {'folder': FOLDER, 'keys': keys, 'homepage': 'https://github.com/lorenmt/mtan'}
        return {
            'sources': ({'name': 'mmtl_jax.data.array_folder', 'builder_kwargs': arguments},),
            'splits': {'validation': 'val'},
            'augment': (vision.colour(),),
            'targets': TARGETS,
        }
    layers = {'depths': ('depth',)}
    return {
        'sources': ({'name': 'nyu_depth_v2'},),
        'steps': (vision.resized(SIZE, **layers),),
        'augment': (vision.mirrored_and_shifted(layers), NORMALS, vision.colour()),
        'eval_steps': (NORMALS,),
        'targets': {task: TARGETS[task] for task in ('depth', 'normals')},
        # What does not fit in memory is read by these.
        'num_workers': 8,
    }


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '', 'mtan' or 'scenes'."""
    vision.check_argument('nyu', arg, ('', MTAN, vision.SCENES))
    if arg == vision.SCENES:
        layers = {'masks': ('segmentation_mask',), 'instances': 'instance_mask'}
        made = ({'name': 'depth_of_solids', 'instances': 'instance_mask'}, {'name': 'normals_from_depth'})
        data = vision.scenes(TARGETS, layers, made=made)
        return vision.config_of(data, tasks(96, class_names=vision.SCENES_CLASSES), sharing=SHARING)
    data = {'batch_size': 8, 'eval_batch_size': 16, 'inputs': {'image': 'image'}, **published(arg)}
    return vision.config_of(
        data,
        tasks(SIZE, tuple(data['targets'])),
        encoder=vision.resnet(depth=50, width=256),
        sharing=SHARING,
        learning_rate=5e-4,
        training={'num_steps': 20000, 'log_every': 50, 'eval_every': 1000, 'average_decay': 0.998},
        splits=('validation',),
    )
