"""What a training step costs under a balancing method, over the step with equal weights.

    python benchmarks/balancing_step.py [--trunks mlp cnn transformer] [--tasks 2 3 10 40] [--methods ...] [--rounds 7]
    python benchmarks/balancing_step.py --keep-memory   (with the allocator as a run sets it on CPUs)
    python benchmarks/balancing_step.py --torchjd       (beside TorchJD: torch, torchjd[quadprog_projector])

One table for each trunk and number of tasks T. Every task is a classification by a linear head on the trunk's features;
a step is the whole training step of this library, with Adam. A method is named with the level of its gradients, such as
`mgda/features`; `famo_next` is `famo(batch='next')`. Beside it, from the same run, the least that its level can cost, a
step

- with one backward pass: `least losses`;
- with a backward pass for each task, all gradients left as they come: `least parameters`;
- with one backward pass for each task through the heads, and one through the trunk: `least features`.

Columns: milliseconds of a step, the least of the rounds, in which all programs take turns; the same over `equal`; the
least that this ratio can be, the least step of the level over `least losses`; the first ratio over the second; seconds
to trace and compile; MiB of temporary memory.

With `--torchjd`, the step of a plain PyTorch loop with TorchJD (`mtl_backward`, UPGrad and MGDA) on the same networks,
in rounds with those of this library.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmtl_jax import balancing, sharing, tasks
from mmtl_jax.core.allocator import keep_freed_memory
from mmtl_jax.core.compiler import compiler_options
from mmtl_jax.core.types import Batch, Features
from mmtl_jax.model import MultiModalMultiTask
from mmtl_jax.training.gradient import Jacobian, make_forward, make_gradient
from mmtl_jax.training.state import TrainState, init_state
from mmtl_jax.training.update import make_look_back, make_update

METHODS = (
    'uncertainty', 'dwa', 'famo', 'famo_next', 'mgda', 'upgrad', 'cagrad', 'pcgrad', 'nash_mtl', 'aligned_mtl', 'moco',
    'graddrop', 'mgda/features', 'graddrop/features',
)  # fmt: skip
VARIANTS = {'famo_next': functools.partial(balancing.famo, batch='next')}
CLASSES = 10


class Mlp(nn.Module):
    """784-512-512-128, the trunk of the figures in TorchJD's issues."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Features:
        """Returns one token of width 128 for `x [B, 784]`."""
        for width in (512, 512, 128):
            x = nn.relu(nn.Dense(width)(x))
        return Features(x[:, None], jnp.ones((len(x), 1), bool))


class Cnn(nn.Module):
    """Four convolutions, three of them with stride 2."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Features:
        """Returns one token of width 64 for `x [B, 32, 32, 3]`."""
        for width, stride in ((32, 1), (64, 2), (64, 2), (64, 2)):
            x = nn.relu(nn.Conv(width, (3, 3), strides=stride)(x))
        return Features(x.mean(axis=(1, 2))[:, None], jnp.ones((len(x), 1), bool))


class Transformer(nn.Module):
    """Two blocks of width 128."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Features:
        """Returns one token of width 128 for `x [B, 32, 128]`."""
        for _ in range(2):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(4)(y, y)
            y = nn.LayerNorm()(x)
            x = x + nn.Dense(128)(nn.gelu(nn.Dense(512)(y)))
        return Features(x.mean(axis=1, keepdims=True), jnp.ones((len(x), 1), bool))


class First(nn.Module):
    """A fusion of one modality: itself."""

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool) -> Features:
        """Returns the features of the modality."""
        (only,) = features.values()
        return only


# Name -> trunk, shape of an input with the batch size first, width of the features.
TRUNKS = {
    'mlp': (Mlp, (256, 784), 128),
    'cnn': (Cnn, (64, 32, 32, 3), 64),
    'transformer': (Transformer, (32, 32, 128), 128),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A trunk with T heads, and a batch for it."""

    model: MultiModalMultiTask
    tasks: tuple[tasks.Task, ...]
    batch: Batch


def make_case(trunk: str, num_tasks: int) -> Case:
    """Returns the network of a row of the table."""
    module, shape, width = TRUNKS[trunk]
    random = np.random.default_rng(0)
    names = tuple(f'task_{index}' for index in range(num_tasks))
    task_list = tuple(tasks.classification(name, num_classes=CLASSES) for name in names)
    model = MultiModalMultiTask(
        encoders={'x': module()},
        fusion=First(),
        sharing=sharing.Hard(tasks=names, width=width),
        heads={task.name: task.head for task in task_list},
        reads={task.name: task.reads for task in task_list},
    )
    rows = shape[0]
    batch = Batch(
        inputs={'x': random.normal(size=shape).astype(np.float32)},
        present={'x': np.ones(rows, bool)},
        targets={name: random.integers(0, CLASSES, rows).astype(np.int32) for name in names},
        labelled={name: np.ones(rows, bool) for name in names},
        real=np.ones(rows, bool),
    )
    return Case(model, task_list, jax.tree.map(jnp.asarray, batch))


def make_step(case: Case, balancer: balancing.Balancer, jacobian: Jacobian) -> tuple[Callable[..., Any], TrainState]:
    """Returns the library's step, one program, and its first state."""
    optimizer = optax.adam(1e-3)
    gradient = make_gradient(case.model, case.tasks, balancer, jacobian)
    update = make_update(case.tasks, optimizer)
    look_back = make_look_back(case.model, case.tasks, balancer) if balancer.after else None

    def step(state: TrainState, batch: Batch) -> TrainState:
        state, measures = update(state, *gradient(state, batch))
        return state if look_back is None else state.replace(balancer=look_back(state, batch, measures['active']))

    return step, _state(case, balancer, optimizer, jacobian.level)


def make_least(case: Case, level: str) -> tuple[Callable[..., Any], TrainState]:
    """Returns the least step of a level: its forward and backward passes, and Adam with the first of the gradients."""
    optimizer = optax.adam(1e-3)
    num_tasks = len(case.tasks)
    needs = 'losses' if level == 'losses' else 'jacobian'
    taken = Jacobian(level='parameters' if level == 'losses' else level)
    forward = make_forward(case.model, case.tasks, needs, taken, factored=False)
    ones, everyone = jnp.ones(num_tasks), jnp.ones(num_tasks, bool)

    def step(state: TrainState, batch: Batch) -> Any:
        shared, done = forward(state, batch, state.key)
        rows = () if level == 'losses' else shared.gradients(done.cotangents)
        if level == 'parameters':
            direction = rows.structure.unflatten([leaf[0] for leaf in rows.leaves])
        else:
            direction = shared.direction(done.cotangents, ones, everyone, rows)
        updates, optimizer_state = optimizer.update({**direction, 'heads': done.heads}, state.optimizer, state.params)
        state = state.replace(params=optax.apply_updates(state.params, updates), optimizer=optimizer_state)
        return state, rows

    return step, _state(case, balancing.equal(), optimizer, 'parameters')


def _state(case: Case, balancer: balancing.Balancer, optimizer: Any, level: str) -> TrainState:
    make = functools.partial(
        init_state, case.model, optimizer, balancer,
        batch=case.batch, num_tasks=len(case.tasks), seed=0, average=False, level=level,
    )  # fmt: skip
    return jax.jit(make)()


@dataclasses.dataclass
class Program:
    """A compiled step that keeps its state between calls.

    Attributes:
      call: takes one step and waits for it.
      seconds: to trace and compile.
      mebibytes: of temporary memory; None where the backend does not say.
      times: milliseconds of the rounds so far.
    """

    call: Callable[[], None]
    seconds: float = 0.0
    mebibytes: float | None = None
    times: list[float] = dataclasses.field(default_factory=list)

    def measure(self) -> None:
        """Takes a step and its time."""
        began = time.perf_counter()
        self.call()
        self.times.append(1e3 * (time.perf_counter() - began))


def compile_program(step: Callable[..., Any], state: TrainState, batch: Batch) -> Program:
    """Returns the compiled step, with one step taken."""
    began = time.perf_counter()
    compiled = jax.jit(step).lower(state, batch).compile(compiler_options=compiler_options())
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()

    def call() -> None:
        # Always from the first state: what the steps do to the parameters must not decide how long they take.
        jax.block_until_ready(compiled(state, batch))

    call()
    return Program(call, seconds, memory.temp_size_in_bytes / 2**20 if memory else None)


def make_balancer(name: str) -> balancing.Balancer:
    """Returns a method with its own defaults, or one of the variants."""
    return VARIANTS[name]() if name in VARIANTS else getattr(balancing, name)()


def programs_of(case: Case, methods: list[str]) -> dict[str, Program]:
    """Returns name -> program, the least ones and `equal` first."""
    programs = {}
    for level in ('losses', 'parameters', 'features'):
        programs[f'least {level}'] = compile_program(*make_least(case, level), case.batch)
    for method in ('equal', *methods):
        name, _, level = method.partition('/')
        jacobian = Jacobian(level=level or 'parameters')
        try:
            step, state = make_step(case, make_balancer(name), jacobian)
        except ValueError as error:
            print(f'{method}: {error}')
            continue
        programs[method] = compile_program(step, state, case.batch)
    return programs


def level_of(method: str) -> str:
    """Returns which least step a method is measured against."""
    name, _, level = method.partition('/')
    return 'losses' if make_balancer(name).needs == 'losses' else level or 'parameters'


def print_table(trunk: str, num_tasks: int, programs: dict[str, Program]) -> None:
    """Prints one table."""
    times = {name: min(program.times) for name, program in programs.items()}
    print(f'\n{trunk}, T = {num_tasks}')
    print(f'{"":20}{"ms":>9}{"/ equal":>9}{"least":>9}{"/ least":>9}{"compile s":>11}{"MiB":>8}')
    for name, program in programs.items():
        ratio, least, over = times[name] / times['equal'], '', ''
        if not name.startswith(('least', 'TorchJD')):
            possible = times[f'least {level_of(name)}'] / times['least losses']
            least, over = f'{possible:.2f}', f'{ratio / possible:.2f}'
        memory = '' if program.mebibytes is None else f'{program.mebibytes:.0f}'
        print(f'{name:20}{times[name]:9.1f}{ratio:9.2f}{least:>9}{over:>9}{program.seconds:11.1f}{memory:>8}')


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trunks', nargs='+', choices=[*TRUNKS], default=[*TRUNKS], help='networks below the heads')
    parser.add_argument('--tasks', type=int, nargs='+', default=[2, 3, 10, 40], help='numbers of tasks')
    parser.add_argument('--methods', nargs='*', default=list(METHODS), help='method, or method/features')
    parser.add_argument('--rounds', type=int, default=7, help='steps of each program, of which the fastest counts')
    parser.add_argument('--torchjd', action='store_true', help='beside TorchJD')
    parser.add_argument('--keep-memory', action='store_true', help='keep freed memory, as a run does')
    arguments = parser.parse_args()
    if arguments.keep_memory and not keep_freed_memory():
        parser.error('--keep-memory needs glibc, and none of its settings in the environment.')
    print(f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}')
    for trunk in arguments.trunks:
        for num_tasks in arguments.tasks:
            programs = programs_of(make_case(trunk, num_tasks), arguments.methods)
            if arguments.torchjd:
                from torchjd_step import torchjd_programs

                steps = torchjd_programs(trunk, num_tasks)
                programs |= {f'TorchJD {name}': Program(call) for name, call in steps.items()}
            for _ in range(arguments.rounds):
                for program in programs.values():
                    program.measure()
            print_table(trunk, num_tasks, programs)


if __name__ == '__main__':
    main()
