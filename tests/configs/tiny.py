"""The smallest run with everything: a table and a text, a class and a number; `examples` makes its data."""

import time

import numpy as np
from ml_collections import ConfigDict

SIZES = {'train': 40, 'validation': 13, 'test': 11}


def examples(
    split: str,
    *,
    nan_rows: tuple[int, ...] = (),
    unlabelled: str | None = None,
    delay: float = 0.0,
    empty: str | None = None,
) -> list[dict]:
    """Returns the examples of a split.

    Args:
      split: train, validation or test.
      nan_rows: training rows whose table holds a NaN.
      unlabelled: a target that is missing in every example.
      delay: how many seconds it takes to read a training example, so that a test can interrupt the run.
      empty: a split without examples.
    """
    rows = []
    for index in range(0 if split == empty else SIZES[split]):
        random = np.random.default_rng([sorted(SIZES).index(split), index])
        table = random.normal(size=4).astype(np.float32)
        row = {
            'id': f'{split}-{index}',
            'table': table.copy(),
            'text': random.integers(1, 11, random.integers(1, 9)) if random.random() > 0.2 else None,
            'kind': int(table[0] > 0) + int(table[1] > 0),
            'size': np.float32(table[2] * 2.0),
        }
        if split == 'train' and index in nan_rows:
            row['table'][1] = np.nan
        rows.append({**row, unlabelled: None} if unlabelled else row)
    return Slow(rows, delay) if split == 'train' and delay else rows


class Slow:
    """Examples that take their time."""

    def __init__(self, rows, delay):
        self.rows, self.delay = rows, delay

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        time.sleep(self.delay)
        return self.rows[index]


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; with 'slow' a step takes long enough to be interrupted, and every number stays the same."""
    slow = arg == 'slow'
    config = ConfigDict()
    config.seed = 0
    config.data = {
        'sources': ({'name': 'tests.configs.tiny.examples', 'builder_kwargs': {'delay': 0.06} if slow else {}},),
        'batch_size': 8,
        'augment': ({'name': 'token_dropout', 'key': 'text', 'rate': 0.2},),
        'inputs': {'table': 'table', 'text': {'key': 'text', 'ragged': True}},
        'targets': {'kind': {'key': 'kind', 'num_classes': 3}, 'size': 'size'},
        'buckets': {'text': (4, 8)},
        'modality_dropout': {'text': 0.2},
        'cache_gigabytes': 0.0 if slow else 1.0,
        # What is read ahead while the compiler works is trained on before a signal can arrive; the rest is not.
        'num_threads': 1 if slow else 2,
        'bad_examples': 'error',
    }
    config.encoders = {
        'table': {'name': 'TabularMLP', 'width': 8, 'depth': 1, 'dropout_rate': 0.2},
        'text': {'name': 'BagOfEmbeddings', 'width': 8, 'vocab_size': 11},
    }
    config.fusion = {'name': 'Concat', 'width': 8}
    config.sharing = {'name': 'Hard', 'width': 8}
    config.tasks = {
        'kind': {'name': 'classification', 'num_classes': 3},
        'size': {'name': 'regression', 'reads': 'table'},
    }
    config.balancing = {'name': 'uncertainty', 'record_every': 4}
    config.optimizer = {'name': 'adamw', 'learning_rate': 1e-2, 'warmup': 0.1, 'clip_norm': 1.0}
    config.training = {
        'num_steps': 24,
        'log_every': 4,
        'eval_every': 8,
        'best_metric': 'primary',
        'average_decay': 0.9,
        'keep_checkpoints': 1,
        'num_devices': 1,
        'compilation_cache': None,
    }
    config.results = {'splits': ('validation', 'test'), 'num_samples': 2, 'tables': ('table',)}
    return config.lock()
