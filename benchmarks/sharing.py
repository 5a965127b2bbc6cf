"""What a training step costs under each sharing scheme, over the step with `Hard`.

    python benchmarks/sharing.py [--trunks mlp images] [--tasks 3] [--schemes ...] [--rounds 15] [--clock wall]

One table for each trunk. A step is the whole training step of this library, with Adam and equal weights. Every task is
a classification by a linear head; on images it reads the mean of every map beside the token. Each scheme has its
defaults, and `Hard` a trunk of one layer, as the experts and networks of the others have.

Columns: parameters of the scheme; milliseconds of a step, the least of the rounds, in which all programs take turns,
and the same over `Hard`; seconds to trace and compile, and over `Hard`; MiB of temporary memory, and over `Hard`.
`--clock cpu` counts the time of all cores that the process had, which other work on the machine disturbs less.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from balancing_step import TRUNKS, Case, First, compile_program, make_step

from mmtl_jax import balancing, encoders, sharing, tasks
from mmtl_jax.core.tree import count
from mmtl_jax.core.types import Batch, Features
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import Jacobian

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
CLASSES, WIDTH = 10, 128
IMAGES = (32, 64, 64, 3)


class EveryStream(nn.Module):
    """A linear classifier that reads the mean token and the mean of each map, so that no stream is idle."""

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> jax.Array:
        """Returns logits `[B, CLASSES]`."""
        means = [features.tokens.mean(axis=1), *(level.mean(axis=(1, 2)) for level in features.maps)]
        return nn.Dense(CLASSES)(jnp.concatenate(means, axis=-1))


def make_case(trunk: str, scheme: str, num_tasks: int) -> Case:
    """Returns the network of a row of the table."""
    if trunk == 'images':
        encoder, shape = encoders.ImageCNN(WIDTH), IMAGES
    else:
        encoder, shape = TRUNKS[trunk][0](), TRUNKS[trunk][1]
    names = tuple(f'task_{index}' for index in range(num_tasks))
    task_list = tuple(
        dataclasses.replace(tasks.classification(name, num_classes=CLASSES), head=EveryStream()) for name in names
    )
    options = {'depth': 1} if scheme == 'Hard' else {}
    model = MultiModalMultiTask(
        encoders={'x': encoder},
        fusion=First(),
        sharing=getattr(sharing, scheme)(tasks=names, width=WIDTH, **options),
        heads={task.name: task.head for task in task_list},
        reads={task.name: task.reads for task in task_list},
    )
    random, rows = np.random.default_rng(0), shape[0]
    batch = Batch(
        inputs={'x': random.uniform(size=shape).astype(np.float32)},
        present={'x': np.ones(rows, bool)},
        targets={name: random.integers(0, CLASSES, rows).astype(np.int32) for name in names},
        labelled={name: np.ones(rows, bool) for name in names},
        real=np.ones(rows, bool),
    )
    return Case(model, task_list, jax.tree.map(jnp.asarray, batch))


def print_table(trunk: str, num_tasks: int, schemes: list[str], rounds: int, clock: Callable[[], float]) -> None:
    """Measures the schemes on one trunk, and prints the table."""
    programs, sizes = {}, {}
    for scheme in ['Hard', *(name for name in schemes if name != 'Hard')]:
        case = make_case(trunk, scheme, num_tasks)
        step, state = make_step(case, balancing.equal(), Jacobian())
        sizes[scheme] = count(state.params['sharing'])
        began = clock()
        programs[scheme] = compile_program(step, state, case.batch)
        programs[scheme].seconds = clock() - began
    for _ in range(rounds):
        for program in programs.values():
            began = clock()
            program.call()
            program.times.append(1e3 * (clock() - began))
    hard, least = programs['Hard'], min(programs['Hard'].times)
    print(f'\n{trunk}, T = {num_tasks}')
    print(f'{"":18}{"parameters":>12}{"ms":>8}{"/ Hard":>8}{"compile s":>11}{"/ Hard":>8}{"MiB":>8}{"/ Hard":>8}')
    for scheme, program in programs.items():
        milliseconds, memory = min(program.times), ''
        if program.mebibytes is not None:
            memory = f'{program.mebibytes:8.1f}{program.mebibytes / hard.mebibytes:8.2f}'
        print(
            f'{scheme:18}{sizes[scheme]:12,}{milliseconds:8.1f}{milliseconds / least:8.2f}'
            f'{program.seconds:11.1f}{program.seconds / hard.seconds:8.2f}{memory}'
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trunks = ['images', *TRUNKS]
    parser.add_argument('--trunks', nargs='+', choices=trunks, default=['mlp', 'images'], help='networks below')
    parser.add_argument('--tasks', type=int, default=3, help='number of tasks')
    parser.add_argument('--schemes', nargs='+', choices=sharing.__all__, default=sharing.__all__, help='to measure')
    parser.add_argument('--rounds', type=int, default=15, help='steps of each program, of which the fastest counts')
    parser.add_argument('--clock', choices=CLOCKS, default='wall', help='of the process, or of its cores together')
    arguments = parser.parse_args()
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
    for trunk in arguments.trunks:
        print_table(trunk, arguments.tasks, arguments.schemes, arguments.rounds, CLOCKS[arguments.clock])


if __name__ == '__main__':
    main()
