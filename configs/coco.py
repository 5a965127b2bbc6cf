"""Classification and detection with attention between the tasks: a ResNet-50 on COCO.

    python -m mmtl_jax.train --config=configs/coco.py --workdir=runs/coco

learns which of 80 classes are in a picture of COCO 2017 (Lin et al. 2014, 1405.0312) and where, at 224 pixels. Each
task attends to the features of the other, in every cell of every map (`TaskAttention`). TFDS downloads 25.2 GiB by
itself and needs TensorFlow to prepare them, on any machine. The test split of COCO has no annotations: a fiftieth of
the training split is held out for validation, and test is what COCO calls validation. Crowds are no objects. Cost and
result: not measured, it has not been trained to the end; the tests run it from end to end on made-up pictures. The same
tasks without a download, on sprites of 12 categories:

    python -m mmtl_jax.train --config=configs/coco.py:scenes --workdir=runs/coco_scenes

took 18 minutes on one core of an AMD EPYC that other work shared. On the 500 test scenes (seed 0, best checkpoint by
validation):

    objects    AP50 .707, AP .328 with the classes left out; AP50 .161, AP .082 with them
    classes    average precision .365, area under the ROC curve .647, means over the 12

Both need pycocotools (`pip install 'mmtl_jax[vision]'`).
"""

from ml_collections import ConfigDict

from configs import vision

NUM_CLASSES = 80
SIZE = 224
SHARING = {'name': 'TaskAttention', 'num_heads': 4}


def data(targets: dict, before: tuple = ()) -> dict:
    """Returns the section `data`; `before` is augmentation before the picture moves."""
    classes = vision.classes_of_boxes(NUM_CLASSES)
    return {
        'sources': ({'name': 'coco/2017'},),
        'splits': {'train': 'train[:98%]', 'validation': 'train[98%:]', 'test': 'validation'},
        'batch_size': 64,
        'steps': (
            {'name': 'clean_boxes', **vision.BOXES, 'unless': ('objects/is_crowd',)},
            vision.resized(SIZE, **vision.BOXES),
        ),
        'augment': (*before, vision.moved(vision.BOXES), *classes, vision.colour()),
        'eval_steps': classes,
        'inputs': {'image': 'image'},
        'targets': targets,
        'num_threads': 8,
        # What does not fit in memory is read by these.
        'num_workers': 8,
    }


def published(training: dict, sharing: dict, before: tuple = ()) -> ConfigDict:
    """Returns the config of the published data set under a sharing scheme."""
    tasks, targets = vision.classes_and_objects(NUM_CLASSES, width=128, depth=2, size=SIZE)
    encoder = vision.resnet(depth=50, width=256)
    return vision.config_of(
        data(targets, before), tasks, encoder=encoder, sharing=sharing, learning_rate=1e-3, training=training
    )


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '' or 'scenes'."""
    vision.check_argument('coco', arg)
    if arg == vision.SCENES:
        return vision.scenes_of_objects(SHARING)
    return published({'num_steps': 45000, 'log_every': 100, 'eval_every': 2500, 'average_decay': 0.999}, SHARING)
