"""What the host remembers: sums that become means, and which evaluation was the best."""

import dataclasses
import json
import math

import numpy as np
import pytest

from mmtl_jax.training.host import Host
from tests.training.tiny import TASKS


def measures(losses, counts, *, bad=(False, False, False)):
    """Returns the measures of a step; every labelled row of the task 'kind' was right."""
    return {
        'losses': np.array(losses),
        'counts': np.array(counts),
        'weights': np.array([1.0, 0.5]),
        'gramian': None,
        'active': np.ones(2, bool),
        'metrics': {'kind': {'accuracy': (counts[0], counts[0])}, 'size': {'mae': (math.nan, 0.0)}},
        'grad_norm': np.array(2.0),
        'bad': np.array(bad),
        'recorded': {'modalities/text/ratio': np.array(2.0 * losses[0])},
    }


def test_a_line_is_the_mean_over_rows_not_over_steps():
    host = Host()
    host.account(measures([1.0, 0.0], [6.0, 0.0]), TASKS)
    host.account(measures([3.0, 0.0], [2.0, 0.0]), TASKS)
    line = host.flush()
    assert line['kind/loss'] == (6 * 1.0 + 2 * 3.0) / 8
    assert line['kind/accuracy'] == 1.0
    assert line['modalities/text/ratio'] == 4.0, 'the mean over the steps'
    assert (line['size/weight'], line['grad_norm'], line['skipped_steps']) == (0.5, 2.0, 0.0)
    assert 'size/loss' not in line, 'no row had a label'
    assert 'size/mae' not in line
    assert host.flush() == {'skipped_steps': 0.0}


def test_steps_that_sat_out_are_counted():
    host = Host()
    for bad in ((False, True, False), (False, True, True), (False, False, False)):
        host.account(measures([1.0, 0.0], [8.0, 0.0], bad=bad), TASKS)
    line = host.flush()
    assert line['size/bad_steps'] == 2.0
    assert 'kind/bad_steps' not in line
    assert line['skipped_steps'] == 1.0


def test_what_waits_to_be_written_survives_a_checkpoint():
    whole, host = Host(), Host()
    for part in range(4):
        whole.account(measures([part / 7, 1.0], [8.0, 3.0]), TASKS)
        host.account(measures([part / 7, 1.0], [8.0, 3.0]), TASKS)
        host = Host(**json.loads(json.dumps(dataclasses.asdict(host))))
    assert host.flush() == whole.flush()


@pytest.mark.parametrize(('values', 'higher', 'best_step', 'since'), [
    ([0.1, 0.3, 0.2], True, 2, 1),
    ([0.1, 0.3, 0.2], False, 1, 2),
    ([0.3, 0.3, 0.3], True, 1, 2),
    ([math.nan, 0.2, 0.1], True, 2, 1),
    ([math.nan, 0.2, math.nan], False, 2, 1),
    ([math.nan], True, None, 1),
], ids=['higher', 'lower', 'a tie keeps the first', 'NaN comes first', 'NaN comes last', 'NaN alone'])  # fmt: skip
def test_the_best_evaluation(values, higher, best_step, since):
    host = Host()
    for step, value in enumerate(values, 1):
        assert host.judge(step, value, higher_is_better=higher) == (host.best_step == step)
    assert (host.best_step, host.evaluations_since_best) == (best_step, since)
