"""What a training step costs that trains all of a pretrained tower, its upper half, factors beside it, or a head alone.

    python benchmarks/fine_tuning.py [--rows 16] [--length 64] [--depth 6] [--rounds 7]

The tower is a BERT of the size of all-MiniLM-L6-v2 (width 384, 12 heads, 30,522 words) with random weights, below one
head; a step is the whole training step of this library, with AdamW. Columns: trained parameters; milliseconds of a
step, and those of all cores together that this process got, which other processes disturb less; both the least of the
rounds, in which all take turns; the latter over that of `full`; seconds to trace and compile; MiB of temporary memory
that gradient and update take at most; MiB of optimizer state.
"""

import argparse
import dataclasses
import functools
import math
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmtl_jax import balancing, encoders, fusion, sharing, tasks
from mmtl_jax.core.tree import count
from mmtl_jax.core.types import Batch, Ragged
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import make_gradient
from mmtl_jax.training.optimizer import make_optimizer
from mmtl_jax.training.state import TrainState, init_state
from mmtl_jax.training.update import make_update

WORDS, WIDTH, HEADS = 30522, 384, 12
TASK = tasks.classification('kind', num_classes=12)


def make_batch(rows: int, length: int) -> Batch:
    """Returns a batch of random text."""
    random = np.random.default_rng(0)
    every = jnp.ones(rows, bool)
    text = Ragged(jnp.asarray(random.integers(1, WORDS, (rows, length)), jnp.int32), jnp.ones((rows, length), bool))
    targets = jnp.asarray(random.integers(0, 12, rows), jnp.int32)
    return Batch(
        inputs={'text': text},
        present={'text': every},
        targets={'kind': targets},
        labelled={'kind': every},
        real=every,
    )


def ways(depth: int) -> dict[str, tuple[nn.Module, tuple[str, ...]]]:
    """Returns name -> the tower, and what of it is frozen."""
    tower = encoders.BERT(vocab_size=WORDS, width=WIDTH, depth=depth, num_heads=HEADS)
    adapted = functools.partial(encoders.LoRA, encoder=tower, rank=8)
    lower = tuple(f'encoders/text/layer_{index}/' for index in range(depth // 2))
    return {
        'full': (tower, ()),
        'upper half': (tower, ('encoders/text/.*embedding', *lower)),
        'LoRA, all kernels': (adapted(targets='kernel'), ('encoders/text/base',)),
        'LoRA, queries and values': (adapted(), ('encoders/text/base',)),
        'frozen': (tower, ('encoders/text',)),
    }


@dataclasses.dataclass
class Way:
    """A compiled step with its state.

    Attributes:
      gradient: compiled.
      update: compiled; the state that it gets is used up.
      state: after the steps so far.
      batch: of every step.
      seconds: to trace and compile both.
      times: milliseconds of the rounds so far.
      busy: milliseconds of the cores in each.
    """

    gradient: jax.stages.Compiled
    update: jax.stages.Compiled
    state: TrainState
    batch: Batch
    seconds: float
    times: list[float] = dataclasses.field(default_factory=list)
    busy: list[float] = dataclasses.field(default_factory=list)

    def measure(self) -> None:
        """Takes a step and its time."""
        began, busy = time.perf_counter(), time.process_time()
        self.state, measures = self.update(self.state, *self.gradient(self.state, self.batch))
        jax.block_until_ready((self.state, measures))
        self.times.append(1e3 * (time.perf_counter() - began))
        self.busy.append(1e3 * (time.process_time() - busy))

    def mebibytes(self) -> float:
        """Returns the temporary memory of the larger half of the step; NaN where the backend does not say."""
        found = [program.memory_analysis() for program in (self.gradient, self.update)]
        return max(math.nan if each is None else each.temp_size_in_bytes / 2**20 for each in found)


def make_way(tower: nn.Module, freeze: tuple[str, ...], batch: Batch) -> Way:
    """Compiles the step, and takes one."""
    model = MultiModalMultiTask(
        encoders={'text': tower},
        fusion=fusion.Mean(width=WIDTH),
        sharing=sharing.Hard(tasks=('kind',), width=WIDTH),
        heads={'kind': TASK.head},
        reads={'kind': 'fused'},
    )
    optimizer = make_optimizer('adamw', optax.constant_schedule(1e-5), weight_decay=0.01, freeze=freeze)
    make_state = functools.partial(
        init_state, model, optimizer, balancing.equal(), batch=batch, num_tasks=1, seed=0, average=False
    )
    state = jax.jit(make_state)()
    began = time.perf_counter()
    gradient = jax.jit(make_gradient(model, (TASK,), balancing.equal())).lower(state, batch).compile()
    outcome = jax.eval_shape(make_gradient(model, (TASK,), balancing.equal()), state, batch)
    update = jax.jit(make_update((TASK,), optimizer), donate_argnums=0).lower(state, *outcome).compile()
    way = Way(gradient, update, state, batch, time.perf_counter() - began)
    way.measure()
    return way


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=16, help='of a batch')
    parser.add_argument('--length', type=int, default=64, help='of each text, in tokens')
    parser.add_argument('--depth', type=int, default=6, help='layers of the tower')
    parser.add_argument('--rounds', type=int, default=7, help='steps of each, of which the fastest counts')
    arguments = parser.parse_args()
    batch = make_batch(arguments.rows, arguments.length)
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
    made = {name: make_way(tower, freeze, batch) for name, (tower, freeze) in ways(arguments.depth).items()}
    for _ in range(arguments.rounds):
        for way in made.values():
            way.measure()
    full = min(made['full'].busy)
    print(f'{"":26}{"trained":>12}{"ms":>7}{"CPU ms":>8}{"/ full":>8}{"compile s":>11}{"MiB":>6}{"optimizer":>11}')
    for name, way in made.items():
        trained, least, busy = count(way.state.trained), min(way.times), min(way.busy)
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(way.state.optimizer)) / 2**20
        row = f'{name:26}{trained:12,}{least:7.0f}{busy:8.0f}{busy / full:8.2f}{way.seconds:11.1f}'
        print(f'{row}{way.mebibytes():6.0f}{held:11.1f}')


if __name__ == '__main__':
    main()
