"""The loop: when it writes, evaluates, saves and stops. The model is one number, so that the loop is all there is."""

import dataclasses
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.training.checkpoint import Checkpoints
from mmtl_jax.training.evaluation import Evaluated
from mmtl_jax.training.hooks import Clock, stop_on_signals
from mmtl_jax.training.host import Host
from mmtl_jax.training.loop import Loop, Settings
from mmtl_jax.training.progress import Progress
from mmtl_jax.training.state import TrainState
from mmtl_jax.training.writer import MetricsWriter, read_metrics
from tests.training.tiny import TASKS


class Numbers:
    """Batches 0, 1, 2, ...; `at` maps a number to what happens when its batch is taken."""

    def __init__(self, at=None):
        self.position, self.at = 0, at or {}

    def __next__(self):
        number, self.position = self.position, self.position + 1
        self.at.get(number, lambda: None)()
        return number

    def get_state(self):
        """Returns the position of the next batch."""
        return {'position': self.position}

    def set_state(self, state):
        """Goes to a position."""
        self.position = state['position']


def new_state():
    return TrainState(
        step=jnp.int32(0), params={'sum': jnp.float32(0)}, variables={}, optimizer=(), balancer=(), average=None,
        key=jax.random.key(0), bad_run=jnp.zeros(3, jnp.int32),
    )  # fmt: skip


def step_with(bad_from=math.inf):
    """Returns a step that adds the batch's number; from batch `bad_from` on, 'size' is not finite."""

    def train_step(state, number):
        bad = np.array([False, number >= bad_from, False])
        measures = {
            'losses': np.array([number, 0.0]),
            'counts': np.array([8.0, 0.0]),
            'weights': np.ones(2),
            'gramian': None,
            'active': np.ones(2, bool),
            'metrics': {'kind': {}, 'size': {}},
            'grad_norm': np.float32(1),
            'bad': bad,
            'recorded': {},
        }
        params = {'sum': state.params['sum'] + number}
        return state.replace(step=state.step + 1, params=params, bad_run=jnp.where(bad, state.bad_run + 1, 0)), measures

    return train_step


def fit(folder, *, scores=(), batches=None, train_step=None, **settings) -> tuple[TrainState, Host, Checkpoints]:
    """Runs the loop in `folder`, or goes on with it; evaluation number i gives 'kind/accuracy' `scores[i]`."""
    settings = Settings(**{'num_steps': 8, 'log_every': 2, 'eval_every': 4, **settings})
    batches, state, host = batches or Numbers(), new_state(), Host()
    with Checkpoints(folder / 'checkpoints', keep=settings.keep_checkpoints) as checkpoints:
        if checkpoints.latest is not None:
            sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
            state, saved = checkpoints.load(checkpoints.latest, like)
            host = Host(**saved)
            batches.set_state(host.data)
        with (
            MetricsWriter(folder / 'metrics.jsonl', resume_step=int(state.step)) as writer,
            Progress(settings.num_steps) as progress,
        ):
            loop = Loop(
                train_step=train_step or step_with(),
                evaluate=lambda state: Evaluated(
                    {'kind/accuracy': dict(enumerate(scores, 1)).get(int(state.step) // settings.eval_every, 0.5)},
                    [], {}, {},
                ),
                batches=batches, batch_size=8, tasks=TASKS, schedule=lambda step: 0.1 * step, settings=settings,
                checkpoints=checkpoints, writer=writer, progress=progress, clock=Clock(),
            )  # fmt: skip
            state = loop.fit(state, host)
        return state, host, checkpoints.steps


def rows(folder):
    """Returns what was written, as `step`, `split` and the value of interest."""
    return [
        (row['step'], row['split'], row.get('kind/loss', row.get('kind/accuracy')))
        for row in read_metrics(folder / 'metrics.jsonl')
    ]


def test_the_order_of_a_run(tmp_path):
    state, host, steps = fit(tmp_path, scores=(0.1, 0.2))
    assert rows(tmp_path) == [
        (2, 'train', 0.5), (4, 'train', 2.5), (4, 'validation', 0.1),
        (6, 'train', 4.5), (8, 'train', 6.5), (8, 'validation', 0.2),
    ]  # fmt: skip
    assert float(state.params['sum']) == sum(range(8))
    assert (host.best_step, host.best_value, steps) == (8, 0.2, [8])


def test_a_line_of_training_tells_rate_speed_and_waiting(tmp_path):
    fit(tmp_path, num_steps=2)
    row = read_metrics(tmp_path / 'metrics.jsonl')[0]
    assert row['learning_rate'] == pytest.approx(0.1), 'the rate of the step that was taken, the second'
    assert row['examples_per_second'] > 0
    assert 0 <= row['input_wait'] <= 1
    assert row['skipped_steps'] == 0


def test_the_last_step_is_evaluated_wherever_it_falls(tmp_path):
    _, _, steps = fit(tmp_path, num_steps=5)
    assert [row[:2] for row in rows(tmp_path)] == [
        (2, 'train'), (4, 'train'), (4, 'validation'), (5, 'train'), (5, 'validation')
    ]  # fmt: skip
    assert steps[-1] == 5


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('at', [2, 4, 7])
def test_a_signal_saves_the_step_and_a_second_call_ends_as_if_nothing_had_been(tmp_path, number, at):
    whole, whole_host, _ = fit(tmp_path / 'whole')
    interrupting = Numbers({at: lambda: os.kill(os.getpid(), number)})
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=f'stopped at step {at + 1}, which is saved; the same command cont'):
        fit(tmp_path / 'cut', batches=interrupting)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    state, host, _ = fit(tmp_path / 'cut')
    assert rows(tmp_path / 'cut') == rows(tmp_path / 'whole')
    assert float(state.params['sum']) == float(whole.params['sum'])
    assert dataclasses.asdict(host) == dataclasses.asdict(whole_host)


@pytest.mark.parametrize('at', [1, 5])
def test_a_crash_loses_what_came_after_the_last_checkpoint_and_nothing_else(tmp_path, at):
    def crash():
        raise RuntimeError('crash')

    whole, _, _ = fit(tmp_path / 'whole')
    with pytest.raises(RuntimeError, match='crash'):
        fit(tmp_path / 'cut', batches=Numbers({at: crash}))
    state, _, _ = fit(tmp_path / 'cut')
    assert rows(tmp_path / 'cut') == rows(tmp_path / 'whole')
    assert float(state.params['sum']) == float(whole.params['sum'])


def test_a_finished_run_takes_no_step_and_a_longer_one_goes_on(tmp_path):
    fit(tmp_path)
    before = rows(tmp_path)
    state, _, _ = fit(tmp_path)
    assert (int(state.step), rows(tmp_path)) == (8, before)
    state, _, _ = fit(tmp_path, num_steps=10)
    assert int(state.step) == 10
    assert rows(tmp_path)[: len(before)] == before


@pytest.mark.parametrize(
    ('scores', 'best', 'last'),
    [
        ((0.5, 0.4, 0.3, 0.9), 4, 12),  # two evaluations without a better value
        ((0.5, 0.4, 0.6, 0.5, 0.5, 0.9), 12, 20),  # a better one starts the count anew
        ((0.5, 0.5, 0.5, 0.9), 4, 12),  # an equal one is no better one
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 24, 24),
    ],
)
def test_early_stopping_and_the_best(tmp_path, scores, best, last):
    settings = {'num_steps': 24, 'log_every': 4, 'patience': 2, 'best_metric': 'kind/accuracy', 'scores': scores}
    state, host, steps = fit(tmp_path, **settings)
    assert (int(state.step), host.best_step) == (last, best)
    assert steps == sorted({best, last}), 'the best checkpoint survives beside the latest'
    assert int(fit(tmp_path, **settings)[0].step) == last, 'out of patience stays out of patience'


def test_more_checkpoints_may_be_kept(tmp_path):
    _, _, steps = fit(tmp_path, num_steps=16, scores=(0.9, 0.1, 0.1, 0.1), keep_checkpoints=2)
    assert steps == [4, 12, 16]


def test_a_task_that_is_not_finite_is_counted_and_too_often_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"the task 'size' was not finite in 3 steps in a row, up to step 6; lower"):
        fit(tmp_path, train_step=step_with(bad_from=3), max_bad_steps=3)
    found = read_metrics(tmp_path / 'metrics.jsonl')
    assert [row.get('size/bad_steps') for row in found] == [None, 1.0, None]
    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        assert checkpoints.latest == 4, 'the checkpoint before stays'


def test_settings_that_make_no_sense_are_named():
    for name in ('num_steps', 'log_every', 'eval_every', 'max_bad_steps', 'keep_checkpoints', 'patience'):
        with pytest.raises(ValueError, match=f'training.{name} is 0; it must be at least 1'):
            Settings(**{'num_steps': 1, name: 0})


def test_a_second_signal_is_as_patient_as_the_first():
    with stop_on_signals() as stop:
        assert not stop.is_set()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()


def test_a_clock_tells_steps_from_what_is_aside():
    clock = Clock()
    for what in ('evaluation', 'input_wait', 'evaluation'):
        with clock.measure(what):
            pass
    assert set(clock.spent) == {'evaluation', 'input_wait'}
    assert clock.training == pytest.approx(clock.total - clock.spent['evaluation'], abs=1e-3)
