"""What reading published weights costs, from their file, and from what was kept of it.

    python benchmarks/pretrained_cache.py [--layers 12] [--rounds 3] [--clock wall]

A BERT-base with random weights, as a pickle of PyTorch (which must be installed), in two safetensors files and in one.
Columns: seconds from the path to the `Tower` without a cache, the first time with one, and each time after that, the
least of the rounds; MiB of the file. Nothing is kept of a single safetensors file. `--clock cpu` counts the time of
all cores that the process had, which other work on the machine disturbs less, and which does not see the disk.
"""

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from mmtl_jax import encoders, pretrained
from mmtl_jax.core.types import Ragged
from mmtl_jax.pretrained.bert import bert_names

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
CONFIG = {
    'model_type': 'bert',
    'vocab_size': 30522,
    'hidden_size': 768,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
}


def original_arrays(depth: int) -> dict[str, np.ndarray]:
    """Returns random arrays by their original names."""
    encoder = encoders.BERT(vocab_size=CONFIG['vocab_size'], width=CONFIG['hidden_size'], depth=depth)
    text = Ragged(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), text, train=False))['params']
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, dtype=np.float32), shapes)
    return bert_names(encoder).to_original(params)


def write(folder: pathlib.Path, kind: str, arrays: dict[str, np.ndarray], depth: int) -> pathlib.Path:
    """Returns the folder with the arrays as one of the kinds of files."""
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps({**CONFIG, 'num_hidden_layers': depth}))
    if kind == 'pickle':
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / 'pytorch_model.bin')
    elif kind == 'safetensors':
        pretrained.write_weights(folder / 'model.safetensors', arrays)
    else:
        places = {name: f'part-{index % 2}.safetensors' for index, name in enumerate(arrays)}
        for file in set(places.values()):
            pretrained.write_weights(folder / file, {name: arrays[name] for name in arrays if places[name] == file})
        (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': places}))
    return folder


def seconds(function: Callable[[], object], clock: Callable[[], float], rounds: int) -> float:
    """Returns the least of the rounds."""
    taken = []
    for _ in range(rounds):
        start = clock()
        function()
        taken.append(clock() - start)
    return min(taken)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--layers', type=int, default=12)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--clock', choices=CLOCKS, default='wall')
    options = parser.parse_args()
    clock, arrays = CLOCKS[options.clock], original_arrays(options.layers)
    print('| file | MiB | without a cache | first | from the cache |')
    print('|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as temporary:
        for kind in ('pickle', 'two files', 'safetensors'):
            folder = write(pathlib.Path(temporary) / kind.replace(' ', '_'), kind, arrays, options.layers)
            cache = pathlib.Path(temporary) / 'cache'
            size = sum(array.nbytes for array in arrays.values()) / 2**20
            plain = seconds(lambda folder=folder: pretrained.bert(folder, cache=False), clock, options.rounds)
            row = [f'{plain:.1f}', '-', '-']
            if kind != 'safetensors':

                def kept(folder: pathlib.Path = folder, cache: pathlib.Path = cache) -> None:
                    pretrained.bert(folder, cache=cache)

                row[1:] = f'{seconds(kept, clock, 1):.1f}', f'{seconds(kept, clock, options.rounds):.1f}'
            print(f'| {kind} | {size:.0f} | {" | ".join(row)} |', flush=True)


if __name__ == '__main__':
    main()
