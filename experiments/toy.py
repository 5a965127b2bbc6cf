"""The toy problem of CAGrad and Nash-MTL: which balancing methods end on the Pareto front, from five starts.

    python -m experiments.toy --out=runs/toy [--methods mgda,cagrad] [--scales 0.1,1] [--steps 100000]

runs every method from every start at every scale of the first loss, all runs of a method in one vmapped call, prints
the tables, and writes them to toy.md and the figure to toy.png.

As in the papers: Adam with the learning rate 1e-3. They take 35,000 steps (Nash-MTL), 50,000 (FAMO) and 100,000
(CAGrad); here all methods take the last. All get the losses minus their lower bound, since some need losses that are
not negative; the gradients are the same. Hyper-parameters are the library's defaults but for `ARGUMENTS`. Nothing is
random in the problem: methods that want independent gradients get the same one several times.
"""

import dataclasses
import inspect
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments import toy_figure
from experiments.toy_problem import LOWER_BOUND, STARTS, Front, losses, pareto_front, scales_of
from mmtl_jax import balancing
from mmtl_jax.balancing.base import Balancer, initial_state
from mmtl_jax.command import run_command
from mmtl_jax.core.build import build, resolve
from mmtl_jax.core.files import write_bytes_atomic
from mmtl_jax.core.types import Array
from mmtl_jax.training.run_directory import processor

LEARNING_RATE = 1e-3
STEPS = 100_000
SCALES = (0.1, 1.0)
# A run is on the front if it ends within this distance of it (`Front.locate`).
TOLERANCE = 0.01
# Runs are looked at each so many steps.
STRIDE = 100
# What differs from the defaults, with the reason.
ARGUMENTS = {
    # The sum of the losses as they were before the scale 0.1.
    'fixed': {'weights': (10.0, 1.0)},
    # The same after half of the steps, from the first loss alone.
    'scheduled': {'schedules': (10.0, optax.linear_schedule(0.0, 1.0, STEPS // 2))},
    # As its authors set it here: no decay, which pulls the logits back to equal weights.
    'famo': {'weight_decay': 0.0},
}
LEFT_OUT = {
    **dict.fromkeys(['krum', 'trimmed_mean'], 'for three tasks or more'),
    **dict.fromkeys(['clip_norm', 'ema', 'every', 'per_group'], 'around another method'),
    'from_weighting': 'for methods of your own',
    'gradient_blend': 'weights from evaluations on a validation split',
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a method; S scales, 5 starts.

    Attributes:
      method: its name.
      path: `[S, 5, N, 2]`, the points at each `STRIDE`th step and at the last one.
      steps: `[N]`, these steps.
      distance: `[S, 5, N]`, from the front.
      place: `[S, 5, N]`, of the nearest point on the front.
    """

    method: str
    path: np.ndarray
    steps: np.ndarray
    distance: np.ndarray
    place: np.ndarray

    @property
    def on_front(self) -> np.ndarray:
        """`[S, 5]` bool, which runs end on the front."""
        return self.distance[..., -1] <= TOLERANCE

    @property
    def arrival(self) -> np.ndarray:
        """`[S, 5]`, the step from which on a run stays on the front; inf if it does not end there."""
        outside = np.where(self.distance > TOLERANCE, np.arange(len(self.steps)), -1).max(axis=-1)
        return np.where(self.on_front, self.steps[np.minimum(outside + 1, len(self.steps) - 1)], np.inf)


def methods() -> list[str]:
    """Returns the names of all methods that can run here, first those that need the losses only."""
    names = [name for name in sorted(balancing.__all__) if returns_balancer(name) and name not in LEFT_OUT]
    return sorted(names, key=lambda name: make(name).needs != 'losses')


def returns_balancer(name: str) -> bool:
    """Returns whether what `balancing` exports under this name makes a balancer."""
    what = getattr(balancing, name, None)
    return inspect.isfunction(what) and inspect.signature(what).return_annotation is Balancer


def make(method: str) -> Balancer:
    """Returns the balancer of this name.

    Raises:
      ValueError: there is none, or it cannot run here.
    """
    if method in LEFT_OUT:
        raise ValueError(f'{method} cannot run on the toy problem ({LEFT_OUT[method]}); leave it out of --methods.')
    resolve(method, balancing)
    if not returns_balancer(method):
        raise ValueError(f'{method} is no balancing method; choose from {methods()}.')
    return build({'name': method, **ARGUMENTS.get(method, {})}, balancing)


def trajectories(balancer: Balancer, *, scales: Sequence[float] = SCALES, steps: int = STEPS) -> Array:
    """Returns the points of all runs of a method, `[S, 5, steps + 1, 2]`, in one compiled call."""
    optimizer = optax.adam(LEARNING_RATE)

    def run(scale: Array, start: Array) -> Array:
        def above_bound(point: Array) -> tuple[Array, Array]:
            values = losses(point, scale) - LOWER_BOUND * scales_of(scale)
            return values, values

        def step(carry: tuple, _: None) -> tuple[tuple, Array]:
            point, moments, state = carry
            jacobian, values = jax.jacrev(above_bound, has_aux=True)(point)
            if balancer.splits > 1:
                jacobian, values = (jnp.stack([each] * balancer.splits) for each in (jacobian, values))
            direction, _, state = balancing.aggregate(balancer, jacobian, values, state)
            updates, moments = optimizer.update(direction, moments)
            point += updates
            if balancer.after is not None:
                state = balancer.after(above_bound(point)[0], jnp.ones(2, bool), state)
            return (point, moments, state), point

        carry = start, optimizer.init(start), initial_state(balancer, 2, start)
        _, path = jax.lax.scan(step, carry, length=steps)
        return jnp.concatenate([start[None], path])

    every_start = jax.vmap(run, in_axes=(None, 0))
    every_run = jax.jit(jax.vmap(every_start, in_axes=(0, None)))
    return every_run(jnp.asarray(scales, jnp.float32), jnp.asarray(STARTS, jnp.float32))


def outcome(method: str, front: Front, *, scales: Sequence[float] = SCALES, steps: int = STEPS) -> Outcome:
    """Returns what becomes of a method."""
    path = np.asarray(trajectories(make(method), scales=scales, steps=steps))
    looked_at = np.append(np.arange(0, steps, STRIDE), steps)
    path = path[:, :, looked_at]
    return Outcome(method, path, looked_at, *front.locate(path))


def table(outcomes: Sequence[Outcome], scale: int) -> str:
    """Returns a Markdown table of where the methods end, at the scale of this index."""
    starts = ' | '.join(f'({x:g}, {y:g})' for x, y in STARTS)
    lines = [f'| method | on the front | {starts} | last arrival |', '|---' * (len(STARTS) + 3) + '|']
    for each in outcomes:
        on_front = each.on_front[scale]
        ends = zip(on_front, each.place[scale, :, -1], each.distance[scale, :, -1], strict=True)
        cells = [f'{place:.2f}' if there else f'off by {distance:.2g}' for there, place, distance in ends]
        arrival = each.arrival[scale][on_front]
        last = f'{arrival.max():,.0f}' if arrival.size else ''
        lines.append(f'| `{each.method}` | {on_front.sum()} of {len(STARTS)} | {" | ".join(cells)} | {last} |')
    return '\n'.join(lines)


def page(outcomes: Sequence[Outcome], scales: Sequence[float], steps: int, facts: Sequence[str]) -> str:
    """Returns the results page."""
    reached = [sum(each.on_front[index].all() for each in outcomes) for index in range(len(scales))]
    summary = [f'{count} at the scale {scale:g}' for count, scale in zip(reached, scales, strict=True)]
    tables = [
        part
        for index, scale in enumerate(scales)
        for part in (f'## The first loss times {scale:g}', table(outcomes, index))
    ]
    return '\n\n'.join([
        '# Results on the toy problem',
        'Two losses of a point in the plane (CAGrad, 2110.14048; with the first loss times 0.1 and five starting '
        f'points: Nash-MTL, 2202.01017), {steps:,} steps of Adam with the learning rate {LEARNING_RATE:g}. '
        '`experiments/toy_problem.py` has the formulas, `experiments/toy.py` says what differs from the papers.',
        *facts,
        f'A run ends **on the front** if its losses are within {TOLERANCE:g} of the Pareto front, each loss in units '
        'of its range on the front. The column of a start says where on the front: 0 is the best for the first loss, '
        '1 the best for the second; or how far from it a run ends. *Last arrival*: the step after which all runs that '
        f'end on the front stay there. Left out: {left_out()}.',
        f'Methods that end on the front from all starts: {", ".join(summary)}, of {len(outcomes)}.',
        *tables,
    ]) + '\n'  # fmt: skip


def left_out() -> str:
    """Returns which exports cannot run here, and why."""
    reasons = dict.fromkeys(LEFT_OUT.values())
    names = {reason: [f'`{name}`' for name, why in LEFT_OUT.items() if why == reason] for reason in reasons}
    return '; '.join(f'{", ".join(found)} ({reason})' for reason, found in names.items())


def work(names: Sequence[str], scales: Sequence[float], steps: int, out: pathlib.Path) -> None:
    """Runs the methods and writes `out`/toy.md and `out`/toy.png, which shows the first scale."""
    if not names:
        raise ValueError(f'--methods is empty; leave it out for all, or choose from {methods()}.')
    check_writable(out)
    for name in names:
        make(name)
    begin, front, outcomes = time.perf_counter(), pareto_front(), []
    for name in names:
        start = time.perf_counter()
        outcomes.append(outcome(name, front, scales=scales, steps=steps))
        print(f'{name}: {time.perf_counter() - start:.1f} s', file=sys.stderr)
    write_bytes_atomic(out / 'toy.png', toy_figure.draw(front, outcomes, scales[0]))
    arguments = [f'--scales={",".join(f"{scale:g}" for scale in scales)}'] if tuple(scales) != SCALES else []
    arguments += [f'--steps={steps}'] if steps != STEPS else []
    arguments += [f'--methods={",".join(names)}'] if list(names) != methods() else []
    seconds = f'{time.perf_counter() - begin:.0f} s ({time.process_time():.0f} s of processor time)'
    command = ' '.join(['python -m experiments.toy', *arguments])
    facts = [f'Made by `{command}` in {seconds}, compilation included, on {processor()}.']
    text = page(outcomes, scales, steps, facts)
    write_bytes_atomic(out / 'toy.md', text)
    print(text)


def check_writable(out: pathlib.Path) -> None:
    """Makes the directory `out`, if need be.

    Raises:
      ValueError: nothing can be written there.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f'--out={out} is a file; give a directory.')
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ValueError(
            f'nothing can be written to --out={out} ({error.strerror}); give another directory.'
        ) from error


def positive_numbers(texts: Sequence[str]) -> list[float]:
    """Returns the numbers in `texts`.

    Raises:
      ValueError: one is no positive number, or there is none.
    """
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < np.inf for number in numbers):
        raise ValueError(f'--scales needs positive numbers such as 0.1,1, got {",".join(texts)!r}.')
    return numbers


def main() -> int:
    """Runs the command line; returns the exit code."""
    values = flags.FlagValues()
    flags.DEFINE_string('out', 'runs/toy', 'Directory for toy.md and toy.png.', flag_values=values)
    flags.DEFINE_list('methods', None, f'Methods to run, all by default: {", ".join(methods())}.', flag_values=values)
    flags.DEFINE_list('scales', [f'{scale:g}' for scale in SCALES], 'Scales of the first loss.', flag_values=values)
    flags.DEFINE_integer('steps', STEPS, 'Steps of a run.', lower_bound=1, flag_values=values)
    return run_command(
        __doc__,
        values,
        lambda: work(
            methods() if values.methods is None else values.methods,
            positive_numbers(values.scales),
            values.steps,
            pathlib.Path(values.out),
        ),
        required=('out',),
    )


if __name__ == '__main__':
    sys.exit(main())
