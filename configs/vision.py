"""What the configs of pictures have in common; no config itself.

Each of them trains on its published data set by default, and with the argument `scenes` on the sprites of
`stamp_scenes`, with the encoder of configs/stamp_scenes.py and fewer steps, which need no download and no GPU. All
tasks read the fused features, with the maps of the picture, so that any sharing scheme stands between them:
`--config.sharing.name=MMoE` takes another where it is `Hard`.
`--config.encoders.image.pretrained=hub:microsoft/resnet-50` begins with published weights where the encoder is a
`ResNet` of that depth.
"""

from ml_collections import ConfigDict, config_dict

from configs import stamp_scenes

SCENES = 'scenes'
NUM_CATEGORIES = stamp_scenes.NUM_CATEGORIES
# What `segmentation_mask` of the scenes holds.
SCENES_CLASSES = ('background', *stamp_scenes.CATEGORIES)
BOXES = {'boxes': 'objects/bbox', 'with_boxes': ('objects/label',)}
OBJECTS = {'boxes': 'objects/bbox', 'labels': 'objects/label'}
# For data sets without a validation split.
HELD_OUT = {'train': 'train[:90%]', 'validation': 'train[90%:]'}
_STAMP_SCENES = stamp_scenes.get_config().to_dict()
SMALL = _STAMP_SCENES['encoders']['image']
SMALL_TRAINING = {**_STAMP_SCENES['training'], 'num_steps': 1500, 'eval_every': 250}
SCENES_BOXES = {**BOXES, 'instances': 'instance_mask', 'tight': True}
SCENES_DETECTION = {field: stamp_scenes.TASKS['objects'][field] for field in ('width', 'level', 'primary')}


def check_argument(name: str, arg: str, known: tuple[str, ...] = ('', SCENES)) -> None:
    """Raises a `ValueError` for an argument that the config `name` does not take."""
    if arg not in known:
        raise ValueError(f'configs/{name}.py takes no argument {arg!r}; it takes one of {list(known)}.')


def config_of(
    data: dict,
    tasks: dict,
    *,
    encoder: dict = SMALL,
    sharing: dict | None = None,
    learning_rate: float | None = None,
    training: dict = SMALL_TRAINING,
    splits: tuple[str, ...] = ('validation', 'test'),
) -> ConfigDict:
    """Returns the locked config; what is left out is that of the scenes."""
    config = ConfigDict()
    config.seed = 0
    config.data = data
    config.encoders = {'image': encoder}
    config.fusion = {'name': 'Sum', 'width': encoder['width'], 'pooling': 'mean', 'maps': 'image'}
    config.sharing = {'name': 'Hard', 'width': encoder['width'], **(sharing or {})}
    config.tasks = {task: {**spec, 'reads': 'fused'} for task, spec in tasks.items()}
    config.balancing = {'name': 'equal'}
    config.optimizer = dict(_STAMP_SCENES['optimizer'])
    if learning_rate is not None:
        config.optimizer.learning_rate = learning_rate
    config.training = {'dtype': 'float32', **training}
    config.results = {'splits': splits, 'num_samples': 12, 'images': (data['inputs']['image'],)}
    return config.lock()


def resnet(depth: int, width: int) -> dict:
    """Returns a residual network of a published size, whose weights a flag can name."""
    return {'name': 'ResNet', 'depth': depth, 'width': width, 'pretrained': config_dict.placeholder(str)}


def scenes(targets: dict, layers: dict, *, steps: tuple = (), before: tuple = (), made: tuple = (), **builder) -> dict:
    """Returns the section `data` of the scenes.

    Args:
      targets: task -> field.
      layers: what lies over the picture and moves with it.
      steps: before all.
      before: augmentation before the picture moves.
      made: what is made of the moved layers, in training and in evaluation.
      **builder: arguments of `stamp_scenes`.
    """
    return {
        'sources': ({'name': 'stamp_scenes', 'builder_kwargs': builder},),
        'batch_size': _STAMP_SCENES['data']['batch_size'],
        'eval_batch_size': _STAMP_SCENES['data']['eval_batch_size'],
        'steps': steps,
        'augment': (*before, moved(layers), *made, colour()),
        'eval_steps': made,
        'inputs': {'image': 'image'},
        'targets': targets,
    }


def resized(size: int | tuple[int, int], **layers) -> dict:
    """Returns the step that brings pictures of all sizes to one."""
    return {'name': 'resize_with_padding', 'layers': layers, 'size': size}


def moved(layers: dict, *, degrees: float = 10.0, scale: tuple[float, float] = (0.8, 1.25)) -> dict:
    """Returns the augmentation that mirrors, zooms, turns and shifts."""
    return {'name': 'random_spatial', 'layers': layers, 'degrees': degrees, 'scale': scale, 'translate': 0.1}


def mirrored_and_shifted(layers: dict) -> dict:
    """Returns the augmentation that leaves depth and the directions that follow from it true."""
    return moved(layers, degrees=0.0, scale=(1.0, 1.0))


def colour(key: str = 'image') -> dict:
    """Returns the augmentation that comes last, for it makes floats of bytes."""
    return {'name': 'colour_jitter', 'key': key, 'brightness': 0.2, 'contrast': 0.2, 'saturation': 0.4}


# --- classes and boxes, the tasks of three of the systems ---


def classes_of_boxes(num_classes: int) -> tuple[dict]:
    """Returns what makes the classes in a picture of the boxes that are in it, after all that moves it."""
    return ({'name': 'multi_hot', 'key': 'objects/label', 'num_classes': num_classes, 'out': 'classes'},)


def classes_and_objects(num_classes: int, **detection) -> tuple[dict, dict]:
    """Returns the tasks: which classes are in the picture, and where; and their targets."""
    tasks = {
        'classes': {'name': 'multilabel', 'num_labels': num_classes},
        'objects': {'name': 'detection', 'num_classes': num_classes, **detection},
    }
    return tasks, {'classes': {'key': 'classes', 'ragged': False}, 'objects': OBJECTS}


def scenes_of_objects(sharing: dict, before: tuple = (), training: dict = SMALL_TRAINING) -> ConfigDict:
    """Returns the config of the classes and the objects in the scenes, under a sharing scheme."""
    tasks, targets = classes_and_objects(NUM_CATEGORIES, **SCENES_DETECTION)
    data = scenes(targets, SCENES_BOXES, before=before, made=classes_of_boxes(NUM_CATEGORIES))
    return config_of(data, tasks, sharing=sharing, training=training)
