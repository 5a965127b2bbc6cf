"""A small made-up run: what `metrics.jsonl`, `summary.json` and a data set would give."""

import itertools
import math

import numpy as np

from mmtl_jax.reporting import Answer, Evaluation, Sample

PRIMARIES = {'category': ('accuracy', True), 'transcript': ('cer', False)}
CLASSES = ('животные', 'τροφή', 'co$t & <b>', '')
HOSTILE = 'Пингвин <script>alert("1")</script> & co'


def history(num_steps=60, every=20):
    """Returns the rows of a run that learns, with one loss that is not finite."""
    rows = []
    for step in range(1, num_steps + 1):
        loss = math.nan if step == 7 else 3.0 * math.exp(-step / 20)
        values = {
            'category/loss': loss,
            'transcript/loss': 100 * loss,
            'category/weight': 1.0,
            'transcript/weight': 5.0,
        }
        row = {'step': step, 'split': 'train', 'seconds': 0.5 * step, **values, 'examples_per_second': 100.0 + step % 7}
        rows.append({**row, 'learning_rate': 1e-3 * (1 - step / num_steps), 'skipped_steps': 0.0})
        if step % every == 0:
            scores = {
                'category/accuracy': step / 100,
                'category/macro_f1': step / 120,
                'transcript/cer': 1 - step / 100,
            }
            rows.append({'step': step, 'split': 'validation', 'seconds': 0.5 * step, 'category/loss': 1.0, **scores})
    return rows


def with_gradients(rows, tasks, every=5):
    """Returns the rows with the gradients' measures in some rows of training: in turn all pairs agree and conflict."""
    pairs = list(itertools.combinations(tasks, 2))
    measured = []
    for row in rows:
        if row['split'] == 'train' and row['step'] % every == 0:
            sign = -1 if row['step'] % (2 * every) == 0 else 1
            cosines = {f'gradients/cosine/{a}/{b}': sign * 0.3 / (index + 1) for index, (a, b) in enumerate(pairs)}
            norms = {f'{task}/gradient_norm': 10.0**index for index, task in enumerate(tasks)}
            row = {**row, **norms, 'gradients/conflicts': float(sign < 0), **cosines}
        measured.append(row)
    return measured


def sample(name='animals/penguin_bg', rate=16000, dtype=np.int16):
    """Returns a sample with every kind of content."""
    tone = np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate) * 0.5
    return Sample(
        id=name,
        images={'image': np.full((8, 6, 3), 200, np.uint8), 'mask': np.zeros((8, 6), np.uint8)},
        texts={'caption': HOSTILE},
        waveforms={'speech': ((tone * 32767).astype(np.int16) if dtype == np.int16 else tone.astype(dtype), rate)},
        tables={'row': {'price': 1.25}},
        answers={
            'category': Answer('τροφή', 'животные', False),
            'transcript': Answer('', HOSTILE, False),
            'language': Answer('bg', 'bg', True),
            'retrieval': Answer('rank 3', 'own caption'),
        },
    )


def run():
    """Returns the arguments of `write_report`."""
    matrix = np.array([[5, 2, 0, 0], [1, 7, 0, 0], [0, 0, 1200, 3], [0, 0, 0, 0]])
    values = {'category/accuracy': 0.6, 'category/macro_f1': 0.5, 'transcript/cer': 0.4}
    return {
        'primaries': PRIMARIES,
        'config': {
            'seed': 0,
            'data': {
                'name': 'stamps',
                'languages': ['bg', 'el'],
                'empty': {},
                'steps': ({'name': 'crop', 'size': 8}, {}),
            },
        },
        'environment': {'python': '3.11', 'packages': {'jax': '0.10.2'}},
        'history': history(),
        'summary': {'step': 60, 'best_step': 40, 'validation': values, 'test': {**values, 'category/accuracy': 0.5871}},
        'evaluations': {'test': {'category': Evaluation({'auc': 0.77}, matrix, CLASSES), 'transcript': Evaluation()}},
        'samples': [sample(f'stamp_{index}', dtype=(np.int16, np.float32)[index % 2]) for index in range(3)],
        'resources': {
            'device': '2 x cpu',
            'parameters': {'encoders/image': 1500, 'heads/category': 500},
            'examples_per_second': 104.5,
            'seconds': {'total': 200.0, 'compile': 50.0, 'input_wait': 2.0},
            'peak_memory_bytes': 3 * 2**29,
            'note': 'warm cache',
        },
    }
