"""Detection that builds on classification: a hierarchy of tasks on PASCAL VOC.

    python -m mmtl_jax.train --config=configs/voc.py --workdir=runs/voc

learns which of 20 classes are in a picture of PASCAL VOC 2012 (Everingham et al. 2010), and where: the detection reads
the features of the classification and the probabilities that it predicts (`Hierarchical`), and trains them too. TFDS
downloads 3.6 GiB by itself and needs TensorFlow to prepare them, on any machine. The test split has no annotations: a
tenth of the training split is held out for validation, and test is what PASCAL calls validation. Objects that are
marked as difficult are none. Cost and result: not measured, it has not been trained to the end; the tests run it from
end to end on made-up pictures. The same tasks without a download, on sprites of 12 categories:

    python -m mmtl_jax.train --config=configs/voc.py:scenes --workdir=runs/voc_scenes

took 16 minutes on one core of an AMD EPYC that other work shared. On the 500 test scenes (seed 0, best checkpoint by
validation):

    objects    AP50 .710, AP .337 with the classes left out; AP50 .172, AP .088 with them
    classes    average precision .375, area under the ROC curve .654, means over the 12

Both need pycocotools (`pip install 'mmtl_jax[vision]'`).
"""

from ml_collections import ConfigDict

from configs import vision

NUM_CLASSES = 20
SIZE = 224
SHARING = {'name': 'Hierarchical', 'builds_on': {'objects': ('classes',)}, 'predictions': ('classes',)}


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '' or 'scenes'."""
    vision.check_argument('voc', arg)
    if arg == vision.SCENES:
        return vision.scenes_of_objects(SHARING)
    tasks, targets = vision.classes_and_objects(NUM_CLASSES, width=128, size=SIZE)
    classes = vision.classes_of_boxes(NUM_CLASSES)
    data = {
        'sources': ({'name': 'voc/2012'},),
        'splits': {**vision.HELD_OUT, 'test': 'validation'},
        'batch_size': 32,
        'steps': (
            {'name': 'clean_boxes', **vision.BOXES, 'unless': ('objects/is_difficult',)},
            vision.resized(SIZE, **vision.BOXES),
        ),
        'augment': (vision.moved(vision.BOXES), *classes, vision.colour()),
        'eval_steps': classes,
        'inputs': {'image': 'image'},
        'targets': targets,
    }
    training = {'num_steps': 12000, 'log_every': 50, 'eval_every': 1000, 'average_decay': 0.998}
    return vision.config_of(
        data,
        tasks,
        encoder=vision.resnet(depth=50, width=256),
        sharing=SHARING,
        learning_rate=1e-3,
        training=training,
    )
