"""A case study on COCO: mosaics, a held-out split, the best checkpoint, early stopping, curves of losses and metrics.

    python -m mmtl_jax.train --config=configs/coco_study.py --workdir=runs/coco_study

is the data set and the two tasks of configs/coco.py, with a shared trunk and the losses weighted by uncertainty, and
all that a run offers around them: half of the training pictures are mosaics of four (2004.10934); every 2,500 steps the
held-out fiftieth of the training split is evaluated; the best checkpoint is that with the highest AP50 there, and the
run stops after 6 evaluations without a better one; the report, runs/coco_study/report.html, has the curves of every
loss, weight and metric, and the test split, which is what COCO calls validation, is evaluated once, with the best
checkpoint. Cost and result: not measured, it has not been trained to the end; the tests run it from end to end on
made-up pictures. The same without a download, on sprites of 12 categories, evaluated every 100 steps by AP50 without
the classes:

    python -m mmtl_jax.train --config=configs/coco_study.py:scenes --workdir=runs/coco_study_scenes

took 14 minutes on one core of an AMD EPYC that other work shared; the last of the 15 evaluations was the best. On the
500 test scenes (seed 0):

    objects    AP50 .691, AP .315 with the classes left out; AP50 .151, AP .077 with them
    classes    average precision .365, area under the ROC curve .652, means over the 12

Both need pycocotools (`pip install 'mmtl_jax[vision]'`).
"""

from ml_collections import ConfigDict

from configs import coco, vision

SCENES_SIZE = 96


def mosaic(layers: dict, size: int) -> tuple[dict]:
    """Returns the augmentation that puts four pictures into one."""
    return ({'name': 'mosaic', 'layers': layers, 'size': size, 'rate': 0.5},)


def study(num_steps: int, eval_every: int, best_metric: str) -> dict:
    """Returns the section `training`."""
    return {
        'num_steps': num_steps,
        'log_every': 50,
        'eval_every': eval_every,
        'best_metric': best_metric,
        'patience': 6,
        'average_decay': 0.998,
    }


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '' or 'scenes'."""
    vision.check_argument('coco_study', arg)
    sharing = {'name': 'Hard'}
    if arg == vision.SCENES:
        training = study(num_steps=1500, eval_every=100, best_metric='objects/objects_ap50')
        config = vision.scenes_of_objects(sharing, mosaic(vision.SCENES_BOXES, SCENES_SIZE), training)
    else:
        training = study(num_steps=90000, eval_every=2500, best_metric='objects/ap50')
        config = coco.published(training, sharing, mosaic(vision.BOXES, coco.SIZE))
    config.unlock()
    config.balancing = {'name': 'uncertainty'}
    return config.lock()
