"""What a step of a ResNet-50 with classification, detection and segmentation costs, beside PyTorch.

    python benchmarks/vision.py [--frameworks jax torch] [--size 224] [--batch 2] [--rounds 5]
    python benchmarks/vision.py --keep-memory   (with the allocator as a run sets it on CPUs)

Both frameworks have the same network (`vision_torch.py`): ResNet-50 with BatchNorm, feature pyramids of 64 channels, a
segmentation into 21 classes at the size of the picture, and boxes of 80 classes at an eighth of it. A step is forward,
backward and Adam, in single precision, with all tasks or with the classification alone. PyTorch gets ready-made which
cell learns which box; here that is part of the step. Every framework runs in a process of its own, and they take turns
step by step.

Columns: milliseconds of a step, the least of the rounds; that of the first framework over it; milliseconds of a step
with the classification alone; the share of the step that the two dense heads cost, 1 - alone / all; the most memory
that the process has ever had, in MiB, less what it had when the framework was loaded. Both programs are in it.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from mmtl_jax.core.allocator import keep_freed_memory

CLASSES, BOX_CLASSES, MASK_CLASSES, OBJECTS = 1000, 80, 21, 4
PROGRAMS = ('all', 'classification')


def example(batch: int, size: int) -> dict[str, np.ndarray]:
    """Returns pictures and what is to be learnt from them."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 0.6, (batch, OBJECTS, 2))
    return {
        'images': random.uniform(size=(batch, size, size, 3)).astype(np.float32),
        'classes': random.integers(0, CLASSES, batch).astype(np.int32),
        'mask': random.integers(0, MASK_CLASSES, (batch, size, size)).astype(np.int32),
        'boxes': np.concatenate([low, low + random.uniform(0.1, 0.4, low.shape)], axis=-1).astype(np.float32),
        'labels': random.integers(0, BOX_CLASSES, (batch, OBJECTS)).astype(np.int32),
    }


def jax_programs(batch: int, size: int) -> dict[str, Callable[[], None]]:
    """Returns name -> a step of this library."""
    import jax
    import jax.numpy as jnp
    from balancing_step import Case, First, make_step

    from mmtl_jax import balancing, encoders, sharing, tasks
    from mmtl_jax.core.compiler import compiler_options
    from mmtl_jax.core.types import Batch, Ragged
    from mmtl_jax.model import MultiModalMultiTask
    from mmtl_jax.training.gradient import Jacobian

    values = example(batch, size)
    every, boxed = np.ones(batch, bool), np.ones((batch, OBJECTS), bool)
    task_list = (
        tasks.classification('category', num_classes=CLASSES),
        tasks.detection('objects', num_classes=BOX_CLASSES, level=1),
        tasks.segmentation('mask', num_classes=MASK_CLASSES, size=size, kind='cross_entropy'),
    )
    targets = {
        'category': values['classes'],
        'objects': {'boxes': Ragged(values['boxes'], boxed), 'labels': Ragged(values['labels'], boxed)},
        'mask': values['mask'],
    }

    def program(chosen: tuple[tasks.Task, ...]) -> Callable[[], None]:
        model = MultiModalMultiTask(
            encoders={'image': encoders.ResNet(width=None, depth=50)},
            fusion=First(),
            sharing=sharing.Hard(tasks=('category',), width=2048),
            heads={task.name: task.head for task in chosen},
            reads={task.name: task.reads for task in chosen},
        )
        names = [task.name for task in chosen]
        batch_of = Batch(
            inputs={'image': values['images']},
            present={'image': every},
            targets={name: targets[name] for name in names},
            labelled=dict.fromkeys(names, every),
            real=every,
        )
        case = Case(model, chosen, jax.tree.map(jnp.asarray, batch_of))
        step, state = make_step(case, balancing.equal(), Jacobian())
        compiled = jax.jit(step, donate_argnums=0).lower(state, case.batch).compile(compiler_options=compiler_options())
        kept = [state]

        def call() -> None:
            kept[0] = jax.block_until_ready(compiled(kept[0], case.batch))

        return call

    return {'all': program(task_list), 'classification': program(task_list[:1])}


def torch_programs(batch: int, size: int) -> dict[str, Callable[[], None]]:
    """Returns name -> a step of PyTorch."""
    from vision_torch import programs

    return programs(example(batch, size), CLASSES, BOX_CLASSES, MASK_CLASSES)


def mebibytes() -> float:
    """Returns the most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def work(framework: str, batch: int, size: int) -> None:
    """Takes a step for every line that comes in, the name of a program, and prints its milliseconds and the memory."""
    __import__(framework)
    before = mebibytes()
    programs = {'jax': jax_programs, 'torch': torch_programs}[framework](batch, size)
    for line in sys.stdin:
        began = time.perf_counter()
        programs[line.strip()]()
        print(1e3 * (time.perf_counter() - began), mebibytes() - before, flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frameworks', nargs='+', choices=('jax', 'torch'), default=['jax', 'torch'])
    parser.add_argument('--size', type=int, default=224, help='side of the picture in pixels')
    parser.add_argument('--batch', type=int, default=2, help='pictures of a step')
    parser.add_argument('--rounds', type=int, default=5, help='of which the least counts')
    parser.add_argument('--keep-memory', action='store_true', help='keep freed memory, as a run does')
    parser.add_argument('--worker', choices=('jax', 'torch'), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.keep_memory and not keep_freed_memory():
        parser.error('--keep-memory needs glibc, and none of its settings in the environment.')
    if arguments.worker:
        work(arguments.worker, arguments.batch, arguments.size)
        return
    options = [f'--batch={arguments.batch}', f'--size={arguments.size}']
    options += ['--keep-memory'] if arguments.keep_memory else []
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, f'--worker={name}', *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in arguments.frameworks
    }  # fmt: skip
    times = {name: {program: [] for program in PROGRAMS} for name in workers}
    memory = {}
    for round_number in range(arguments.rounds + 1):
        for program in PROGRAMS:
            for name, worker in workers.items():
                worker.stdin.write(f'{program}\n')
                worker.stdin.flush()
                milliseconds, memory[name] = map(float, worker.stdout.readline().split())
                # The first step is slower.
                if round_number:
                    times[name][program].append(milliseconds)
    for worker in workers.values():
        worker.communicate()
    first = min(times[arguments.frameworks[0]]['all'])
    print(f'{"":8}{"ms, all":>10}{"/":>8}{"ms, classes":>13}{"heads":>8}{"MiB":>8}')
    for name, found in times.items():
        whole, alone = (min(found[program]) for program in PROGRAMS)
        print(f'{name:8}{whole:10.0f}{first / whole:8.2f}{alone:13.0f}{1 - alone / whole:8.0%}{memory[name]:8.0f}')


if __name__ == '__main__':
    main()
