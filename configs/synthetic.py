"""Generated scenes: picture, caption, tones and table row; one task of each kind; nothing to download.

    python -m mmtl_jax.train --config=configs/synthetic.py --workdir=runs/synthetic
    python -m mmtl_jax.train --config=configs/synthetic.py:smoke --workdir=runs/smoke

`:smoke` is the same on a few examples of one length bucket, in two steps, for tests.
"""

from ml_collections import ConfigDict

ARGUMENTS = ('', 'smoke')


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is '' or 'smoke'."""
    if arg not in ARGUMENTS:
        raise ValueError(f'configs/synthetic.py takes no argument {arg!r}; it takes one of {list(ARGUMENTS)}.')
    smoke = arg == 'smoke'
    sizes = {'num_train': 64, 'num_validation': 24, 'num_test': 24} if smoke else {'num_train': 4000}
    config = ConfigDict()
    config.seed = 0
    config.data = {
        'sources': ({'name': 'synthetic', 'builder_kwargs': {**sizes, 'missing_rate': 0.1}},),
        'batch_size': 8 if smoke else 64,
        'vocabularies': {
            'words': {'kind': 'words', 'key': 'caption'},
            'tones': {'kind': 'characters', 'key': 'transcript'},
            'table': {'kind': 'statistics', 'key': 'table'},
        },
        'steps': (
            {'name': 'words', 'key': 'caption', 'vocabulary': 'words', 'out': 'words'},
            {'name': 'characters', 'key': 'transcript', 'vocabulary': 'tones', 'out': 'tones'},
            {'name': 'log_mel', 'key': 'speech', 'out': 'mel', 'sample_rate': 8000, 'num_mels': 32},
            {'name': 'normalise_frames', 'key': 'mel'},
            {'name': 'standardise', 'key': 'table', 'statistics': 'table'},
        ),
        'augment': ({'name': 'random_crop', 'key': 'image', 'size': 32, 'pad': 2},),
        'inputs': {'image': 'image', 'caption': 'words', 'speech': 'mel', 'table': 'table'},
        'targets': {
            'shape': {'key': 'shape', 'num_classes': 6},
            'parity': {'key': 'parity', 'num_classes': 2},
            'attributes': {'key': 'attributes', 'ragged': False},
            'total': 'total',
            'transcript': {'key': 'tones', 'ragged': True},
            'retrieval': {'group': 'group'},
        },
        'buckets': {'speech': (56,) if smoke else (32, 56)},
    }
    config.encoders = {
        'image': {'name': 'ImageCNN', 'width': 32},
        'caption': {'name': 'BagOfEmbeddings', 'width': 32, 'vocab_size': 'words'},
        'speech': {'name': 'AudioCNN', 'width': 48, 'depth': 2, 'stack': 2},
        'table': {'name': 'TabularMLP', 'width': 32},
    }
    config.fusion = {'name': 'Concat', 'width': 64}
    config.sharing = {'name': 'Hard', 'width': 64, 'depth': 1}
    config.tasks = {
        'shape': {'name': 'classification', 'num_classes': 6},
        'parity': {'name': 'classification', 'num_classes': 2},
        'attributes': {
            'name': 'multilabel',
            'num_labels': 4,
            'class_names': ('several', 'indoors', 'long', 'positive'),
        },
        'total': {'name': 'regression'},
        'transcript': {'name': 'ctc', 'vocabulary': 'tones', 'reads': 'speech'},
        'retrieval': {'name': 'contrastive', 'modalities': ('image', 'caption', 'speech'), 'width': 32},
    }
    config.balancing = {'name': 'equal'}
    config.optimizer = {'name': 'adamw', 'learning_rate': 2e-3, 'warmup': 0.05, 'weight_decay': 0.02, 'clip_norm': 1.0}
    config.training = {
        'num_steps': 2 if smoke else 1500,
        'log_every': 1 if smoke else 50,
        'eval_every': 2 if smoke else 500,
    }
    config.results = {
        'splits': ('validation', 'test'),
        'num_samples': 4 if smoke else 12,
        'images': ('image',),
        'texts': ('caption', 'transcript'),
        'waveforms': {'speech': 8000},
        'tables': ('table',),
    }
    return config.lock()
