"""What training costs beside its steps: `python benchmarks/train.py --config=configs/synthetic.py --steps=100`.

One call measures, on an otherwise idle machine:

- the loop over the bare step: `Loop.fit`, with logging and progress bar as configured, against a plain Python loop over
  the same compiled functions and the same batches on the devices, in alternating rounds. Evaluations and checkpoints
  are left out on both sides;
- the share of the time that the loop waits for its input, with the real pipeline;
- the time from the start of the process to the end of the first step, with an empty compilation cache and with the one
  that this left behind;
- how often the step was compiled, for how many length buckets, and whether anything was compiled after the start.

The data set is prepared first, outside of all times. Each start is a process of its own.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring
from rich.console import Console

from mmtl_jax.core.types import Batch
from mmtl_jax.data import load_source
from mmtl_jax.experiment import Experiment, from_config
from mmtl_jax.run import Run, open_run
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.hooks import Clock
from mmtl_jax.training.host import Host
from mmtl_jax.training.loop import Batches, Loop
from mmtl_jax.training.mesh import split
from mmtl_jax.training.progress import Progress
from mmtl_jax.training.state import TrainState
from mmtl_jax.training.writer import MetricsWriter

ROUNDS = 5
# Batches that are kept on the devices and repeated.
KEPT = 16
COMPILE_EVENT = '/jax/core/compile/backend_compile_duration'


def load_config(name: str) -> dict[str, Any]:
    """Returns the plain values of the config file `path` or `path:argument`."""
    path, _, argument = name.partition(':')
    specification = importlib.util.spec_from_file_location('config', path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config(argument).to_dict()


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a clock showed at the end of some steps, in seconds: steps and their input together, the input alone."""

    training: float
    input_wait: float


class Repeat:
    """The same batches over and over, as the loop's `Batches`."""

    def __init__(self, batches: list[Batch]):
        self._batches, self._next = batches, 0

    def __next__(self) -> Batch:
        batch = self._batches[self._next % len(self._batches)]
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns nothing: this position is never saved."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Stays where it is."""


class NoCheckpoints:
    """Stands where the checkpoints would be, which are not part of what is measured."""

    def save(self, *unused: Any) -> None:
        """Saves nothing."""


def measure(config: dict[str, Any], steps: int, started: float, *, rounds: int) -> dict[str, Any]:
    """Returns what this process measured; with `rounds` 0 it stops after the first step.

    Args:
      config: plain values.
      steps: of a round.
      started: when the process was started, as `time.time()` told it.
      rounds: comparisons of the loop with bare steps.
    """
    seconds = {'imports': time.time() - started}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        seconds[what] = time.perf_counter() - began
        return result

    experiment = timed('data and model', lambda: _ready(from_config(config)))
    run = open_run(experiment)
    batches = experiment.inputs.train_batches(split(run.mesh))
    state = timed('first state', lambda: jax.block_until_ready(run.new_state()))
    timed('compilation of the gradient', lambda: run.compile(state))
    batch = timed('first batch', lambda: next(batches))
    state, _ = timed('first step, with the update', lambda: jax.block_until_ready(run.train_step(state, batch)))
    found = {
        'seconds': {**seconds, 'from start to first step': time.time() - started},
        'buckets': len(experiment.inputs.empty_batches()),
        'machine': f'{os.cpu_count()} CPU cores, {jax.device_count()} x {jax.devices()[0].device_kind}, '
        f'jax {jax.__version__}, Python {platform.python_version()}',
    }
    if rounds:
        # The schedule and other small eager operations compile at their first use, in a round that does not count.
        kept = [next(batches) for _ in range(min(KEPT, steps))]
        state, _ = loop_seconds(run, state, Repeat(kept), min(steps, 2 * len(kept)))
        compiled = count_compilations()
        state, found['ratios'], found['bare'] = compare(run, state, kept, steps, rounds)
        state, spent = loop_seconds(run, state, batches, steps)
        found['input wait'] = spent.input_wait / spent.training
        found['compiled later'] = len(compiled)
    batches.close()
    return {**found, 'gradients': run.gradient.count, 'updates': run.update.count}


def _ready(experiment: Experiment) -> Experiment:
    """Returns the experiment with its training examples prepared and its shapes known."""
    experiment.inputs.layout  # noqa: B018 (a property that reads the training split)
    return experiment


def count_compilations() -> list[float]:
    """Returns a list that grows by the seconds of every compilation from now on, whichever function it is of."""
    found: list[float] = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    return found


def compare(
    run: Run, state: TrainState, kept: list[Batch], steps: int, rounds: int
) -> tuple[TrainState, list[float], float]:
    """Returns the state, the loop's time over the bare steps' for each round, and the best time of a bare step."""
    ratios, bare = [], []
    for number in range(rounds):
        times = {}
        # Which comes first changes, so that a machine that slows down or recovers favours neither.
        for which in ('bare', 'loop') if number % 2 else ('loop', 'bare'):
            if which == 'bare':
                state, times[which] = bare_seconds(run, state, Repeat(kept), steps)
            else:
                state, spent = loop_seconds(run, state, Repeat(kept), steps)
                times[which] = spent.training
        ratios.append(times['loop'] / times['bare'])
        bare.append(times['bare'] / steps)
    return state, ratios, min(bare)


def bare_seconds(run: Run, state: TrainState, batches: Repeat, steps: int) -> tuple[TrainState, float]:
    """Returns the state after `steps` steps and nothing else, and the seconds that they took."""
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(steps):
        state, _ = run.train_step(state, next(batches))
    jax.block_until_ready(state)
    return state, time.perf_counter() - began


def loop_seconds(run: Run, state: TrainState, batches: Batches, steps: int) -> tuple[TrainState, Spent]:
    """Returns the state after `steps` steps of the loop, and what they took."""
    experiment = run.experiment
    jax.block_until_ready(state)
    first = int(state.step)
    last = first + steps
    values = {f'{task.name}/{task.primary}': 0.0 for task in experiment.tasks}
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, 'w') as nowhere,
        MetricsWriter(pathlib.Path(folder) / 'metrics.jsonl', resume_step=first) as writer,
        # A terminal, so that drawing the bar is part of the cost.
        Progress(last, start=first, console=Console(file=nowhere, force_terminal=True)) as progress,
    ):
        clock = Clock()
        loop = Loop(
            train_step=run.train_step,
            evaluate=lambda state: Evaluated(values, [], {}, {}),
            batches=batches,
            batch_size=experiment.inputs.batch_size,
            tasks=experiment.tasks,
            schedule=experiment.schedule,
            settings=dataclasses.replace(
                experiment.settings, num_steps=last, eval_every=last, best_metric='primary', patience=None
            ),
            checkpoints=NoCheckpoints(),
            writer=writer,
            progress=progress,
            clock=clock,
        )
        state = jax.block_until_ready(loop.fit(state, Host()))
        return state, Spent(clock.training, clock.spent['input_wait'])


def start(arguments: argparse.Namespace, cache: str, rounds: int) -> dict[str, Any]:
    """Returns what a new process measures."""
    command = [sys.executable, __file__, f'--config={arguments.config}', f'--steps={arguments.steps}']
    command += [f'--cache={cache}', f'--rounds={rounds}', f'--started={time.time()}']
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(first: dict[str, Any], second: dict[str, Any], load: float) -> str:
    """Returns the measurements as lines of text."""
    ratios = sorted(100 * (ratio - 1) for ratio in second['ratios'])
    cold, warm = first['seconds'], second['seconds']
    lines = [
        f'machine: {second["machine"]}; load before the start {load:.1f} (an idle machine has about 0)',
        f'bare step: {1e3 * second["bare"]:.1f} ms',
        f'loop over bare step: {statistics.median(ratios):+.1f} %, median of {len(ratios)} rounds, '
        f'{ratios[0]:+.1f} to {ratios[-1]:+.1f} (to reach: at most 3 %)',
        f'input wait: {100 * second["input wait"]:.1f} % of the training time (to reach: below 5 %)',
        f'compilations: {second["gradients"]} of the gradient for {second["buckets"]} buckets, {second["updates"]} of '
        f'the update, {second["compiled later"]} of anything after the start',
        '',
        f'{"seconds":32}{"first start":>14}{"second start":>14}',
        *(f'{what:32}{cold[what]:14.1f}{warm[what]:14.1f}' for what in cold),
    ]
    return '\n'.join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='configs/synthetic.py')
    parser.add_argument('--steps', type=int, default=100, help='steps of a round')
    parser.add_argument('--rounds', type=int, default=ROUNDS)
    parser.add_argument('--cache', help=argparse.SUPPRESS)
    parser.add_argument('--started', type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    if arguments.cache:
        config['training']['compilation_cache'] = arguments.cache
        print(json.dumps(measure(config, arguments.steps, arguments.started, rounds=arguments.rounds)))
        return

    load = os.getloadavg()[0]
    for source in config['data']['sources']:
        load_source(
            source['name'],
            'train',
            data_dir=source.get('data_dir'),
            builder_kwargs=source.get('builder_kwargs'),
        )
    with tempfile.TemporaryDirectory() as cache:
        first = start(arguments, cache, rounds=0)
        second = start(arguments, cache, rounds=arguments.rounds)
    print(table(first, second, load))


if __name__ == '__main__':
    main()
