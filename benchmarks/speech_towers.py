"""What the towers for speech cost: milliseconds for a second of audio, of the sizes wav2vec 2.0 base and Whisper tiny.

    python benchmarks/speech_towers.py [--towers wav2vec2 whisper whisper_short] [--clips 4] [--seconds 4] [--repeats 3]
    python benchmarks/speech_towers.py --original       (beside transformers, where it and torch are installed)

Weights are random. `whisper` gets each clip filled up to 30 s, as the original does; `whisper_short` its own length.
Columns: million parameters, tokens of a clip, then forward, and forward with the gradient of all parameters, each the
least of the repeats, without compilation: by the clock, and in time of all cores together, which another program on the
machine changes little.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import encoders
from mmtl_jax.core.tree import count
from mmtl_jax.core.types import Ragged

TOWERS = {
    'wav2vec2': (encoders.Wav2Vec2(width=768), (16000,)),
    'whisper': (encoders.Whisper(width=384), (100, 80)),
    'whisper_short': (encoders.Whisper(width=384), (100, 80)),
}
WHISPER_SECONDS = 30


def clips_of(name: str, clips: int, seconds: int) -> np.ndarray:
    """Returns normal numbers in the shape of a tower's input."""
    rate, *rest = TOWERS[name][1]
    length = WHISPER_SECONDS if name == 'whisper' else seconds
    return np.random.default_rng(0).normal(size=(clips, length * rate, *rest)).astype(np.float32)


def least_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Returns the least times of a call, by the clock and of the cores; the first call, which compiles, is left out."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, cores = zip(*times[1:], strict=True)
    return min(clock), min(cores)


def measure(name: str, values: np.ndarray, repeats: int) -> tuple[float, int, list[tuple[float, float]]]:
    """Returns million parameters, tokens of a clip, and the seconds of both passes over all clips."""
    encoder = TOWERS[name][0]
    inputs = Ragged(jnp.asarray(values), jnp.ones(values.shape[:2], bool))
    params = jax.jit(lambda key: encoder.init(key, inputs, train=False))(jax.random.key(0))['params']

    @jax.jit
    def forward(params, inputs):
        return encoder.apply({'params': params}, inputs, train=False).tokens

    backward = jax.jit(jax.grad(lambda params, inputs: jnp.sum(forward(params, inputs) ** 2)))
    passes = [least_seconds(lambda run=run: run(params, inputs), repeats) for run in (forward, backward)]
    return count(params) / 1e6, forward(params, inputs).shape[1], passes


def measure_original(name: str, values: np.ndarray, repeats: int) -> tuple[float, int, list[tuple[float, float]]]:
    """Returns the same of the model of `transformers`."""
    import torch
    import transformers

    torch.manual_seed(0)
    wave = name == 'wav2vec2'
    model = transformers.Wav2Vec2Model if wave else transformers.WhisperModel
    model = model((transformers.Wav2Vec2Config if wave else transformers.WhisperConfig)()).eval()
    model = model if wave else model.encoder
    inputs = torch.tensor(values if wave else values.transpose(0, 2, 1))

    def forward():
        with torch.no_grad():
            return model(inputs).last_hidden_state.numpy()

    def backward():
        model.zero_grad()
        torch.sum(model(inputs).last_hidden_state ** 2).backward()

    million = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return million, forward().shape[1], [least_seconds(run, repeats) for run in (forward, backward)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--towers', nargs='+', default=list(TOWERS), choices=TOWERS)
    parser.add_argument('--clips', type=int, default=4, help='of a batch')
    parser.add_argument('--seconds', type=int, default=4, help='of a clip')
    parser.add_argument('--repeats', type=int, default=3, help='passes of which the fastest counts')
    parser.add_argument('--original', action='store_true', help='beside transformers')
    arguments = parser.parse_args()
    audio = arguments.clips * arguments.seconds
    print(f'{"ms for a second of audio":32} {"million":>8} {"tokens":>7} {"forward":>15} {"gradient":>15}')
    for name in arguments.towers:
        values = clips_of(name, arguments.clips, arguments.seconds)
        rows = {name: measure}
        # The original takes 30 s only.
        if arguments.original and name != 'whisper_short':
            rows[f'{name} of transformers'] = measure_original
        for row, function in rows.items():
            million, tokens, passes = function(name, values, arguments.repeats)
            times = (f'{1000 * clock / audio:7.0f} ({1000 * cores / audio:5.0f})' for clock, cores in passes)
            print(f'{row:32} {million:8.1f} {tokens:7} {" ".join(times)}', flush=True)


if __name__ == '__main__':
    main()
