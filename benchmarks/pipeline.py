"""What the input pipeline costs: `python benchmarks/pipeline.py [synthetic | stamps]`.

Prints the time to prepare and cache the training split, the size of the cache, and the time of one augmented batch of
32 built in one thread, both as elapsed time and as processor time, which other work on the machine changes less.
"""

import argparse
import time

import numpy as np

from mmtl_jax import data

SYNTHETIC = {
    'source': {'name': 'synthetic', 'builder_kwargs': {'num_train': 5000}},
    'vocabularies': {'transcript': {'key': 'transcript'}},
    'buckets': {'speech': (16, 32, 64)},
    'inputs': {'image': 'image', 'caption': 'ngrams', 'speech': 'mel'},
    'targets': {'shape': 'shape', 'transcript': {'key': 'transcript_ids', 'ragged': True}},
    'steps': [
        {'name': 'log_mel', 'key': 'speech', 'out': 'mel', 'sample_rate': 8000, 'num_mels': 40},
        {'name': 'normalise_frames', 'key': 'mel'},
        {'name': 'hashed_ngrams', 'key': 'caption', 'out': 'ngrams', 'num_buckets': 4096},
        {'name': 'characters', 'key': 'transcript', 'out': 'transcript_ids', 'vocabulary': 'transcript'},
    ],
    'augment': [
        {'name': 'random_crop', 'key': 'image', 'size': 32, 'pad': 4},
        {'name': 'random_flip', 'key': 'image'},
        {'name': 'colour_jitter', 'key': 'image'},
        {'name': 'time_stretch', 'key': 'mel', 'max_length': 64},
        {'name': 'spec_augment', 'key': 'mel', 'time_width': 5, 'frequency_width': 5},
        {'name': 'token_dropout', 'key': 'ngrams'},
    ],
}
STAMPS = {
    'source': {'name': 'stamps'},
    'vocabularies': {'caption': {'key': 'caption'}},
    'buckets': {'speech': (112, 176, 272, 600)},
    'inputs': {'image': 'image', 'caption': 'ngrams', 'speech': 'mel'},
    'targets': {
        'category': {'key': 'category', 'num_classes': 12},
        'transcript': {'key': 'transcript', 'ragged': True},
        'retrieval': {'group': 'group', 'image': 'stamp'},
    },
    'steps': [
        {'name': 'resize', 'key': 'image', 'size': 72},
        {'name': 'log_mel', 'key': 'speech', 'out': 'mel'},
        {'name': 'normalise_frames', 'key': 'mel'},
        {'name': 'hashed_ngrams', 'key': 'caption', 'out': 'ngrams', 'num_buckets': 16384},
        {'name': 'characters', 'key': 'caption', 'out': 'transcript', 'vocabulary': 'caption'},
    ],
    'augment': [
        {'name': 'random_affine', 'key': 'image'},
        {'name': 'random_crop', 'key': 'image', 'size': 64},
        {'name': 'random_flip', 'key': 'image'},
        {'name': 'colour_jitter', 'key': 'image'},
        {'name': 'time_stretch', 'key': 'mel', 'max_length': 600},
        {'name': 'frequency_shift', 'key': 'mel'},
        {'name': 'spec_augment', 'key': 'mel'},
        {'name': 'token_dropout', 'key': 'ngrams'},
    ],
    'eval_steps': [{'name': 'centre_crop', 'key': 'image', 'size': 64}],
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', nargs='?', default='synthetic', choices=['synthetic', 'stamps'])
    parser.add_argument('--batch_size', type=int, default=32)
    parser.add_argument('--batches', type=int, default=200)
    arguments = parser.parse_args()
    spec = dict(SYNTHETIC if arguments.data == 'synthetic' else STAMPS)

    source = data.load_source(split='train', **spec.pop('source'))
    buckets = spec.pop('buckets')
    start = time.perf_counter()
    vocabularies = data.fit_vocabularies(spec.pop('vocabularies'), source)
    print(f'vocabularies        {time.perf_counter() - start:8.2f} s')
    busy = time.process_time()
    rows = data.prepare(source, data.build_preprocess(**spec, vocabularies=vocabularies))
    busy = time.process_time() - busy
    print(f'prepare {len(rows):6d} rows {rows.seconds:8.2f} s elapsed, {busy:.2f} s busy')
    print(f'cache               {rows.num_bytes / 2**20:8.1f} MiB')

    layout = data.make_layout(rows, buckets=buckets)
    loader = data.train_loader(rows, batch_size=arguments.batch_size, seed=0, layout=layout, num_threads=0)
    next(loader)
    start, busy = time.perf_counter(), time.process_time()
    real, padded = 0, 0
    for _ in range(arguments.batches):
        mask = next(loader).inputs['speech'].mask
        real, padded = real + mask.sum(), padded + mask.size
    elapsed = (time.perf_counter() - start) / arguments.batches * 1e3
    busy = (time.process_time() - busy) / arguments.batches * 1e3
    print(f'batch of {arguments.batch_size:4d}       {elapsed:8.2f} ms elapsed, {busy:.2f} ms busy')
    print(f'speech frames that are real {np.round(100 * real / padded, 1)} %')


if __name__ == '__main__':
    main()
