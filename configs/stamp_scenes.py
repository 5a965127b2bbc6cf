"""Scenes of real sprites: what the main object is, where all objects are, and what is foreground, in one model.

    python -m mmtl_jax.train --config=configs/stamp_scenes.py --workdir=runs/stamp_scenes

needs the package pycocotools (`pip install 'mmtl_jax[vision]'`). The sprites of the three splits are disjoint. It took
25 minutes on one core of an AMD EPYC that other work shared, 15 minutes of its time. On the 500 test scenes (seed 0;
best checkpoint, step 2,000, by validation):

    objects       AP50 .716, AP .332 with the classes left out; AP50 .173, AP .087 with them
    foreground    mIoU .899, pixel accuracy .967
    category      accuracy .210, macro-F1 .191, of 12 classes

It finds objects that it has never seen, and names few of them: what a sprite is, 653 others do not teach.

The argument names the tasks, so that every single-task baseline is the same command, and after a slash the sharing
scheme, through which the maps of all tasks go:

    --config=configs/stamp_scenes.py:objects                              boxes alone
    --config=configs/stamp_scenes.py:category_foreground                  without boxes
    --config=configs/stamp_scenes.py:category_objects_foreground/MMoE     another scheme than `Hard`

Foreground is every pixel of an object, those of objects without a label included, which are mostly covered.
"""

from ml_collections import ConfigDict

CATEGORIES = (
    'animals', 'clothes', 'food', 'household', 'misc', 'people', 'plants', 'seasonal', 'space', 'symbols', 'town',
    'vehicles',
)  # fmt: skip
NUM_CATEGORIES = len(CATEGORIES)
TASKS = {
    'category': {'name': 'classification', 'num_classes': NUM_CATEGORIES, 'label_smoothing': 0.1, 'dropout_rate': 0.2},
    # An eighth of the side of the picture is fine enough for objects of a fifth and more, and four times as quick.
    'objects': {
        'name': 'detection',
        'num_classes': NUM_CATEGORIES,
        'reads': 'fused',
        'width': 64,
        'level': 1,
        'primary': 'objects_ap50',
    },
    'foreground': {
        'name': 'segmentation',
        'num_classes': 2,
        'reads': 'fused',
        'size': 96,
        'width': 48,
        'class_names': ('background', 'foreground'),
    },
}
TARGETS = {
    'category': {'key': 'label', 'num_classes': NUM_CATEGORIES},
    'objects': {'boxes': 'objects/bbox', 'labels': {'key': 'objects/label', 'num_classes': NUM_CATEGORIES}},
    'foreground': {'key': 'foreground', 'kind': 'mask', 'num_classes': 2},
}


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is `<task>_<task>/<sharing scheme>`, by default all tasks and `Hard`."""
    names, _, scheme = arg.partition('/')
    tasks = tuple(names.split('_')) if names else tuple(TASKS)
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise ValueError(f'configs/stamp_scenes.py: no task {unknown[0]!r}; choose from {list(TASKS)}.')
    config = ConfigDict()
    config.seed = 0
    config.data = data(tasks)
    config.encoders = {'image': {'name': 'ImageResNet', 'width': 128, 'stage_widths': (32, 64, 96, 128)}}
    config.fusion = {'name': 'Sum', 'width': 128, 'pooling': 'mean', 'maps': 'image'}
    config.sharing = {'name': scheme or 'Hard', 'width': 128}
    config.tasks = {task: TASKS[task] for task in tasks}
    config.balancing = {'name': 'equal'}
    config.optimizer = {
        'name': 'adamw',
        'learning_rate': 2e-3,
        'schedule': 'cosine',
        'warmup': 0.05,
        'weight_decay': 0.02,
        'clip_norm': 5.0,
    }
    config.training = {
        'num_steps': 2400,
        'log_every': 50,
        'eval_every': 400,
        'average_decay': 0.998,
        'dtype': 'float32',
    }
    config.results = {'splits': ('validation', 'test'), 'num_samples': 12, 'images': ('image',), 'texts': ('caption',)}
    return config.lock()


def data(tasks: tuple[str, ...]) -> dict:
    """Returns the section `data`."""
    layers = {
        'masks': ('foreground',),
        'instances': 'instance_mask',
        'boxes': 'objects/bbox',
        'with_boxes': ('objects/label',),
        'tight': True,
    }
    return {
        'sources': ({'name': 'stamp_scenes'},),
        'batch_size': 32,
        'eval_batch_size': 50,
        'steps': ({'name': 'map_labels', 'key': 'segmentation_mask', 'values': (0,), 'other': 1, 'out': 'foreground'},),
        'augment': (
            {'name': 'random_spatial', 'layers': layers, 'degrees': 10.0, 'scale': (0.8, 1.25), 'translate': 0.1},
            {'name': 'colour_jitter', 'key': 'image', 'brightness': 0.2, 'contrast': 0.2, 'saturation': 0.4},
        ),
        'inputs': {'image': 'image'},
        'targets': {task: TARGETS[task] for task in tasks},
    }
