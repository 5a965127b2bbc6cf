"""The progress bar, its plain lines, and the parameter overview."""

import io

import numpy as np
import pytest
from rich.console import Console

from mmtl_jax.training.freezing import trained_part
from mmtl_jax.training.progress import Progress, clock_time, parameter_counts, parameter_overview


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self):
        """Returns the time."""
        return self.now


def make_console(**options):
    return Console(file=io.StringIO(), width=160, **options)


def run(console, clock, **options):
    """Makes 300 steps of half a second from step 100 on, the first of them a minute long."""
    with Progress(400, start=100, console=console, clock=clock, **options) as progress:
        clock.now += 60
        for step in range(101, 401):
            progress.update(step)
            if step == 200:
                progress.update(step, {'category': 1.2345, 'transcript [en]': 12345.6}, 412.3)
                progress.log('step 200 validation: [bold]category/accuracy 0.5')
            clock.now += 0.5
    return console.file.getvalue()


def test_plain_lines_come_every_few_seconds_and_at_the_end():
    lines = run(make_console(), Clock(), every=40.0).splitlines()
    assert lines == [
        'step 101/400 (25%)',
        'step 181/400 (45%) | 1:50 left',
        'step 200 validation: [bold]category/accuracy 0.5',
        'step 261/400 (65%) | category 1.23 transcript [en] 1.2e+04 | 412 examples/s | 1:10 left',
        'step 341/400 (85%) | category 1.23 transcript [en] 1.2e+04 | 412 examples/s | 0:30 left',
        'step 400/400 (100%) | category 1.23 transcript [en] 1.2e+04 | 412 examples/s | 0:00 left',
    ]


def test_a_terminal_gets_a_bar_and_the_messages_stay_above_it():
    shown = run(make_console(force_terminal=True, color_system=None), Clock())
    assert 'step 200 validation: [bold]category/accuracy 0.5\n' in shown
    assert '100% 400/400 category 1.23 transcript [en] 1.2e+04 | 412 examples/s | 0:00 left' in shown


def test_nothing_is_said_of_a_run_without_steps():
    console = make_console()
    with Progress(10, start=10, console=console):
        pass
    assert console.file.getvalue() == ''


def test_an_error_passes_and_the_last_line_is_said():
    console = make_console()

    def fails():
        with Progress(10, console=console) as progress:
            progress.update(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert console.file.getvalue() == 'step 3/10 (30%)\n'


@pytest.mark.parametrize(('seconds', 'text'), [(0.4, '0:00'), (59.6, '1:00'), (725, '12:05'), (3723, '1:02:03')])
def test_durations(seconds, text):
    assert clock_time(seconds) == text


def test_parameters_are_counted_by_part():
    params = {
        'encoders': {'image': {'kernel': np.zeros((3, 3, 4), np.float32)}, 'text': {'embedding': np.zeros((10, 2))}},
        'fusion': {'kernel': np.zeros((6, 6), np.float32), 'bias': np.zeros((), np.float32)},
        'heads': {'category': {'bias': np.zeros(5, np.float32)}},
    }
    counts = {'encoders/image': 36, 'encoders/text': 20, 'fusion': 37, 'heads/category': 5}
    assert parameter_counts(params) == counts
    console = make_console()
    console.print(parameter_overview(params))
    shown = console.file.getvalue()
    for text in (
        '98 parameters',
        'encoders/image/kernel',
        '3x3x4',
        'float64',
        'scalar',
        '= heads/category',
        '5.1%',
        *map(str, counts.values()),
    ):
        assert text in shown
    assert 'trained' not in shown
    assert parameter_counts({}) == {}


def test_the_overview_tells_what_is_trained():
    params = {'encoders': {'image': {'kernel': np.zeros((3, 4)), 'bias': np.zeros(4)}}, 'heads': {'a': np.zeros(7)}}
    console = make_console()
    console.print(parameter_overview(params, trained_part(params, ('encoders/image/kernel',))))
    rows = [line.replace('│', ' ').split() for line in console.file.getvalue().splitlines()]
    assert ' '.join(rows[0]) == '23 parameters, 11 of them trained'
    assert ['encoders/image/kernel', '3x4', 'float64', '12', '0'] in rows
    assert ['=', 'encoders/image', '69.6%', '16', '4'] in rows
    assert ['=', 'heads/a', '30.4%', '7', '7'] in rows
