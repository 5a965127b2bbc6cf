"""Tux Paint stamps: picture, caption and speech; category, transcript, language, attributes and retrieval in one model.

    python -m mmtl_jax.train --config=configs/stamps.py --workdir=runs/stamps

took 13.3 minutes on two cores of an Intel Xeon, with everything from scratch: obtaining and preparing the data and an
empty compilation cache (seed 0). On the test split, mean and standard deviation over the seeds 0, 1 and 2
(`--config.seed=1`), best checkpoint by validation:

    category per clip      accuracy .675 +- .002, macro-F1 .568 +- .007; without symbols .584 +- .004, .492 +- .007
    category per stamp     accuracy .759 +- .005, macro-F1 .657 +- .018; without symbols .669 +- .008, .632 +- .020
    transcript             character error rate .401 +- .002
    attributes             macro-F1 .646 +- .004
    language               accuracy .998 +- .001, which tells voices apart: each language has one reader
    retrieval, R@5 / chance    caption to speech 6.8, speech to caption 6.4, caption to image 3.8, speech to image 2.8,
                               image to caption 2.7, image to speech 2.6

Trained alone for as many steps (`:image_caption_speech/category` and so on, seed 0), the category reaches .678, .574
per clip and .786, .695 per stamp, the transcript .400, the attributes .717: joint training is no better there, and
worse for the attributes. Retrieval alone reaches a mean R@5 of .124, jointly .192 +- .011.

`python -m experiments.stamps` makes the whole table, docs/results/stamps.md, with a TF-IDF baseline (.619, .544 per
clip), single modalities and single tasks. Settings were chosen on validation.

The argument names the modalities, after a slash the tasks, and after another the fusion, so that every baseline is
the same command:

    --config=configs/stamps.py:image_caption            without speech, and the tasks that need none
    --config=configs/stamps.py:speech                   speech alone
    --config=configs/stamps.py:speech/transcript        a single task
    --config=configs/stamps.py:image_caption//LowRank   another fusion than `Sum`
"""

from ml_collections import ConfigDict

MODALITIES = ('image', 'caption', 'speech')
# Task -> the modalities without which it cannot be asked.
TASKS = {
    'category': (),
    'transcript': ('speech',),
    'language': ('speech',),
    'attributes': (),
    'retrieval': (),
}
WEIGHTS = {'category': 1.0, 'transcript': 5.0, 'language': 0.2, 'attributes': 0.2, 'retrieval': 1.0}
# What fusions learn by themselves, each a task of its own beside the others.
OBJECTIVES = {
    'Autoencoder': ('reconstruction',),
    'DeepBeliefNetwork': ('contrastive_divergence',),
    'DeepCCA': ('cca',),
    'Factorized': ('reconstruction', 'mmd'),
    'MatrixFactorization': ('reconstruction',),
    'Variational': ('reconstruction', 'kl'),
}
OBJECTIVE_WEIGHT = 0.1


def parse(arg: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Returns modalities, tasks and fusion of `<modality>_<modality>/<task>_<task>/<fusion>`; by default all, `Sum`."""
    first, second, fusion, *_ = *arg.split('/'), '', ''
    modalities = tuple(first.split('_')) if first else MODALITIES
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown:
        raise ValueError(f'configs/stamps.py: no modality {unknown[0]!r}; choose from {list(MODALITIES)}.')
    possible = [name for name, needed in TASKS.items() if set(needed) <= set(modalities)]
    if len(modalities) < 2:
        possible.remove('retrieval')
    tasks = tuple(second.split('_')) if second else tuple(possible)
    unknown = [name for name in tasks if name not in possible]
    if unknown:
        raise ValueError(
            f'configs/stamps.py: no task {unknown[0]!r} with {"_".join(modalities)}; choose from {possible}.'
        )
    return modalities, tasks, fusion or 'Sum'


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` names modalities, tasks and fusion as the head of this file says."""
    modalities, tasks, fusion = parse(arg)
    config = ConfigDict()
    config.seed = 0
    config.data = data(modalities, tasks)
    encoders = {
        'image': {
            'name': 'ImageCNN',
            'width': 192,
            'stage_widths': (32, 64, 96, 128),
            'patch': 2,
            'dropout_rate': 0.3,
        },
        'caption': {
            'name': 'BagOfEmbeddings',
            'vocab_size': 16385,
            'width': 144,
            'embedding_width': 64,
            'token_dropout_rate': 0.4,
            'dropout_rate': 0.3,
        },
        'speech': {'name': 'AudioCNN', 'width': 144, 'depth': 5, 'dropout_rate': 0.1},
    }
    config.encoders = {name: encoders[name] for name in modalities}
    config.fusion = {
        'name': fusion,
        'width': 192,
        'dropout_rate': 0.1,
        # The transcript needs all of the speech; the fusion learns it by heart and then neglects the picture.
        'modality_dropout': {'speech': 0.5} if 'speech' in modalities and len(modalities) > 1 else {},
    }
    if fusion == 'Sum':
        config.fusion.pooling = 'mean'
    config.sharing = {'name': 'Hard', 'width': 192}
    specs = {
        'category': {'name': 'classification', 'num_classes': 12, 'label_smoothing': 0.1, 'dropout_rate': 0.2},
        'transcript': {'name': 'ctc', 'vocabulary': 'caption', 'reads': 'speech'},
        'language': {'name': 'classification', 'num_classes': 9, 'reads': 'speech'},
        'attributes': {
            'name': 'multilabel',
            'num_labels': 6,
            'class_names': ('colorable', 'no mirror', 'no flip', 'raster', 'cartoon', 'svg'),
        },
        'retrieval': {
            'name': 'contrastive',
            'modalities': modalities,
            'width': 128,
            'hidden': (256,),
            'dropout_rate': 0.2,
        },
    }
    config.tasks = {name: specs[name] for name in tasks}
    config.balancing = {'name': 'fixed', 'weights': {name: WEIGHTS[name] for name in tasks}}
    for objective in OBJECTIVES.get(fusion, ()):
        config.tasks[objective] = {'name': 'auxiliary', 'objective': objective}
        config.balancing.weights[objective] = OBJECTIVE_WEIGHT
    config.optimizer = {
        'name': 'adamw',
        'learning_rate': 2e-3,
        'schedule': 'cosine',
        'warmup': 0.05,
        'weight_decay': 0.02,
        'b2': 0.98,
        'clip_norm': 1.0,
        'rate_by_path': {'encoders/caption': 2.5} if 'caption' in modalities else {},
    }
    config.training = {
        'num_steps': 5600,
        'log_every': 50,
        'eval_every': 700,
        'average_decay': 0.998,
        'dtype': 'float32',
    }
    config.results = {
        'splits': ('validation', 'test'),
        'num_samples': 12,
        'images': ('image',),
        'texts': ('caption_raw', 'caption_english_raw'),
        'waveforms': {'speech': 16000},
    }
    return config.lock()


def data(modalities: tuple[str, ...], tasks: tuple[str, ...]) -> dict:
    """Returns the section `data`: only the transforms that these modalities and tasks need."""
    steps = {
        'image': ({'name': 'resize', 'key': 'image', 'size': 72},),
        'caption': (
            {'name': 'hashed_ngrams', 'key': 'caption', 'num_buckets': 16384, 'out': 'ngrams', 'max_length': 256},
        ),
        'speech': (
            {'name': 'log_mel', 'key': 'speech', 'out': 'mel'},
            # Mean and deviation over all frames of the training split.
            {'name': 'normalise_frames', 'key': 'mel', 'mean': -9.2, 'deviation': 5.1},
        ),
        'transcript': ({'name': 'characters', 'key': 'caption', 'vocabulary': 'caption', 'out': 'characters'},),
        'attributes': (
            {'name': 'multi_hot', 'key': 'style', 'num_classes': 3, 'out': 'styles'},
            {'name': 'stack', 'keys': ('flags', 'styles'), 'out': 'attributes'},
        ),
    }
    augment = {
        'image': (
            {'name': 'random_affine', 'key': 'image', 'degrees': 12.0, 'scale': (0.9, 1.2), 'translate': 0.05},
            {'name': 'random_resized_crop', 'key': 'image', 'size': 64, 'scale': (0.4, 1.0)},
            {'name': 'random_flip', 'key': 'image'},
            {'name': 'colour_jitter', 'key': 'image', 'brightness': 0.3, 'contrast': 0.3, 'saturation': 0.6},
        ),
        'speech': (
            {'name': 'time_stretch', 'key': 'mel', 'low': 0.88, 'high': 1.12, 'max_length': 600},
            {'name': 'spec_augment', 'key': 'mel', 'frequency_width': 9, 'max_time_share': 0.05},
        ),
    }
    inputs = {'image': 'image', 'caption': 'ngrams', 'speech': {'key': 'mel', 'ragged': True}}
    targets = {
        'category': {'key': 'category', 'num_classes': 12},
        'transcript': {'key': 'characters', 'ragged': True},
        'language': {'key': 'language', 'num_classes': 9},
        'attributes': {'key': 'attributes', 'ragged': False},
        # A picture occurs once per language; its number lets retrieval count it once.
        'retrieval': {'group': 'group', **({'image': 'stamp'} if 'image' in modalities else {})},
    }
    hidden = [name for name in ('image', 'caption') if name in modalities and len(modalities) > 1]
    return {
        'sources': ({'name': 'stamps'},),
        'batch_size': 32,
        'eval_batch_size': 64,
        'vocabularies': {'caption': {'kind': 'characters', 'key': 'caption'}} if 'transcript' in tasks else {},
        'steps': sum((steps[name] for name in (*modalities, *tasks) if name in steps), ()),
        'augment': sum((augment[name] for name in modalities if name in augment), ()),
        'eval_steps': ({'name': 'resize', 'key': 'image', 'size': 64},) if 'image' in modalities else (),
        'inputs': {name: inputs[name] for name in modalities},
        'targets': {name: targets[name] for name in tasks},
        'buckets': {'speech': (120, 184, 304, 600)} if 'speech' in modalities else None,
        'modality_dropout': dict.fromkeys(hidden, 0.25),
    }
