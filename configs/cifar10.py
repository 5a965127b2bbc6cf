"""Classification and detection: what the one object is, and where on the canvas it stands.

    python -m mmtl_jax.train --config=configs/cifar10.py --workdir=runs/cifar10

pastes the pictures of CIFAR-10, scaled, on a canvas of noise of 64 pixels, so that their boxes are known: at a random
place at every visit in training, and in evaluation at one that the picture decides on. TFDS downloads 0.16 GiB by
itself and needs TensorFlow to prepare them, on any machine. A tenth of the training split is held out for validation;
test is the data set's own. Cost and result: not measured, it has not been trained to the end; the tests run it from end
to end on made-up pictures. Without a download, on scenes of one sprite each, whose background is more than noise:

    python -m mmtl_jax.train --config=configs/cifar10.py:scenes --workdir=runs/cifar10_scenes

took 10 minutes on one core of an AMD EPYC that other work shared. On the 500 test scenes (seed 0, best checkpoint by
validation):

    objects     AP50 .956, AP .599 with the classes left out; AP50 .249, AP .162 with them
    category    accuracy .190, macro-F1 .129, of 12 classes

Both need pycocotools (`pip install 'mmtl_jax[vision]'`).
"""

from ml_collections import ConfigDict

from configs import vision

CANVAS = {'name': 'place_on_canvas', 'key': 'image', 'size': 64, 'label': 'label'}
TARGETS = {'category': 'label', 'objects': vision.OBJECTS}


def tasks(num_classes: int) -> dict:
    """Returns both tasks."""
    return {
        'category': {'name': 'classification', 'num_classes': num_classes, 'label_smoothing': 0.1, 'dropout_rate': 0.2},
        'objects': {'name': 'detection', 'num_classes': num_classes, **vision.SCENES_DETECTION},
    }


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '' or 'scenes'."""
    vision.check_argument('cifar10', arg)
    if arg == vision.SCENES:
        data = vision.scenes(TARGETS, vision.SCENES_BOXES, max_objects=1)
        return vision.config_of(data, tasks(vision.NUM_CATEGORIES))
    data = {
        'sources': ({'name': 'cifar10'},),
        'splits': vision.HELD_OUT,
        'batch_size': 128,
        'eval_batch_size': 500,
        'augment': ({'name': 'random_flip', 'key': 'image'}, CANVAS, vision.colour()),
        'eval_steps': ({**CANVAS, 'seed': 0},),
        'inputs': {'image': 'image'},
        'targets': TARGETS,
    }
    training = {'num_steps': 14000, 'log_every': 100, 'eval_every': 1400, 'average_decay': 0.998}
    # At full resolution: the smallest objects have 16 pixels.
    encoder = {'name': 'ImageResNet', 'width': 256, 'stage_sizes': (2, 2, 2, 2), 'patch': 1}
    return vision.config_of(data, tasks(10), encoder=encoder, training=training)
