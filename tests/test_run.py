"""The life of a run, by its command lines: what it leaves, how it goes on, and that nothing is lost on the way."""

import errno
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mmtl_jax import train
from mmtl_jax.run import Run, open_checkpoints, open_run, saved_experiment
from mmtl_jax.training import checkpoint
from mmtl_jax.training.mesh import split
from tests.configs import tiny
from tests.verbs import ENVIRONMENT, TINY, call, edited, one_error, rows_of, snapshot, train_tiny


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> pathlib.Path:
    """A run that came to its end; tests that change it copy it first."""
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    assert train_tiny(workdir) == 0
    return workdir


@pytest.fixture
def copy(finished, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished, tmp_path / 'copy'))


@pytest.fixture
def no_report(monkeypatch):
    """Leaves out figures and report where a test is not about them."""
    monkeypatch.setattr(train, 'write_results', lambda *unused: None)


def open_latest(workdir: pathlib.Path) -> tuple[Run, jax.Array, object]:
    """Returns a saved run and its latest checkpoint, whole."""
    experiment = saved_experiment(workdir)
    run = open_run(experiment)
    with open_checkpoints(workdir, experiment) as checkpoints:
        return run, *run.load(checkpoints, checkpoints.latest)


def assert_equal_to_the_bit(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, jax.Array) and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def what_training_made(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns the files that only a training may change."""
    kept = ('metrics.jsonl', 'checkpoints/', 'fitted.json')
    return {name: content for name, content in snapshot(workdir).items() if name.startswith(kept)}


# --- what a finished run gives ---


def test_a_second_call_does_nothing(finished, capsys):
    before, summary = what_training_made(finished), (finished / 'summary.json').read_bytes()
    assert train_tiny(finished) == 0
    assert what_training_made(finished) == before
    assert (finished / 'summary.json').read_bytes() == summary
    assert '(best so far)' not in capsys.readouterr().err, 'nothing is evaluated for selection again'


def test_summary_report_and_figures(finished):
    summary, environment, config = (
        json.loads((finished / f'{name}.json').read_text()) for name in ('summary', 'environment', 'config')
    )
    assert summary['step'] == 24
    rows = {(row['step'], row['split']): row for row in rows_of(finished)}
    best = rows[summary['best_step'], 'validation']
    assert {key: best[key] for key in summary['validation']} == summary['validation']
    assert set(summary['test']) == set(summary['validation'])
    report = (finished / 'report.html').read_text()
    assert f'{summary["test"]["kind/accuracy"]:.3f}' in report
    shown = int(re.search(r'validation-(\d+)', report)[1])
    cells = [round(float(cell), 4) for cell in tiny.examples('validation')[shown]['table']]
    assert all(f'<td>{cell}</td>' in report for cell in cells)
    assert {'features.png', 'reliability_validation.png', 'reliability_test.png'} <= {
        path.name for path in (finished / 'figures').iterdir()
    }
    assert {'kind/ece', 'kind/nll', 'kind/brier'} <= set(best)
    assert {'python', 'packages', 'devices', 'git_commit'} <= set(environment)
    assert config['tasks']['size'] == {'name': 'regression', 'reads': 'table'}


def test_the_gradients_of_the_tasks_are_recorded_and_drawn(finished):
    lines = [row for row in rows_of(finished) if row['split'] == 'train']
    measured = [row for row in lines if 'gradients/conflicts' in row]
    # Only batches of the shortest bucket are measured, so a line may lack them.
    assert len(measured) >= 3
    for row in measured:
        assert row['kind/gradient_norm'] > 0.0
        # The tasks share the encoder of the table alone, in which they may agree or not, but never by more than this.
        assert -1.0 <= row['gradients/cosine/kind/size'] <= 1.0
    assert {'weights.png', 'gradient_norms.png', 'conflicts.png', 'losses.png'} <= {
        path.name for path in (finished / 'figures').iterdir()
    }


def test_evaluate_and_predict_use_the_run_alone(copy, tmp_path, capsys):
    summary = json.loads((copy / 'summary.json').read_text())
    assert call('evaluate', f'--workdir={copy}', '--split=test') == 0
    assert f'kind/accuracy {summary["test"]["kind/accuracy"]:.4f}' in capsys.readouterr().out
    assert json.loads((copy / 'summary.json').read_text()) == summary
    out = tmp_path / 'new' / 'out.jsonl'
    assert call('predict', f'--workdir={copy}', '--split=validation', f'--out={out}') == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line['id'] for line in lines) == sorted(f'validation-{i}' for i in range(13))
    accuracy = np.mean([line['kind']['predicted'].split()[0] == line['kind']['expected'] for line in lines])
    assert accuracy == pytest.approx(summary['validation']['kind/accuracy'])


def test_a_finished_run_may_be_prolonged(copy, no_report):
    earlier = rows_of(copy)
    assert train_tiny(copy, '--config.training.num_steps=26') == 0
    rows = rows_of(copy)
    assert rows[: len(earlier)] == earlier
    assert [(row['step'], row['split']) for row in rows[len(earlier) :]] == [(26, 'train'), (26, 'validation')]
    assert json.loads((copy / 'config.json').read_text())['training']['num_steps'] == 26


def test_the_seed_alone_decides_the_numbers(finished, tmp_path, no_report):
    for seed, same in ((0, True), (1, False)):
        assert train_tiny(tmp_path / str(seed), f'--config.seed={seed}') == 0
        rows = rows_of(tmp_path / str(seed))
        assert [row == other for row, other in zip(rows, rows_of(finished), strict=True)] == [same] * len(rows)


def test_a_run_in_bfloat16_is_near_one_in_float32_and_is_evaluated_in_it(finished, tmp_path, capsys, no_report):
    rough = tmp_path / 'rough'
    config = edited(tmp_path, "config.training.dtype = 'bfloat16'")
    assert train_tiny(rough, config=config) == 0
    _, state, _ = open_latest(rough)
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if jax.numpy.issubdtype(leaf.dtype, np.floating)]
    assert {*floats} == {np.dtype('float32')}
    mine, theirs = (rows_of(run)[0]['kind/loss'] for run in (rough, finished))
    # The first steps; bfloat16 has 8 bits, a relative 1/256 per operation.
    assert 0 < abs(mine - theirs) < 0.05
    validated = {f'kind/loss {row["kind/loss"]:.4f}' for row in rows_of(rough) if row['split'] == 'validation'}
    capsys.readouterr()
    assert call('evaluate', f'--workdir={rough}', '--split=validation') == 0
    assert validated & {*capsys.readouterr().out.splitlines()}, 'evaluated in another type than in training'


def test_eight_devices_give_the_numbers_of_one(finished, tmp_path, no_report):
    assert train_tiny(tmp_path / 'eight', '--config.training.num_devices=8') == 0
    for row, expected in zip(rows_of(tmp_path / 'eight'), rows_of(finished), strict=True):
        assert row.pop('split') == expected.pop('split')
        # A sum over eight devices is a float32 sum in another order, and Adam amplifies what remains of it.
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_each_bucket_compiles_once_and_nothing_later(finished):
    run, state, _ = open_latest(finished)
    run.compile(state)
    num_buckets = run.experiment.inputs.layout.num_buckets
    assert (run.gradient.count, num_buckets) == (2, 2)
    batches, met = run.experiment.inputs.train_batches(split(run.mesh)), set()
    for _ in range(6):
        batch = next(batches)
        met.add(batch.inputs['text'].values.shape)
        state, _ = run.train_step(state, batch)
    batches.close()
    assert len(met) == 2, 'both buckets were met'
    assert (run.gradient.count, run.update.count) == (2, 1)
    for name in ('validation', 'test', 'validation'):
        run.evaluate(state, name)
    assert run.eval_step.count == num_buckets


# --- workdirs that do not fit ---


def test_a_workdir_of_another_config(finished, capsys):
    before = snapshot(finished)
    assert train_tiny(finished, '--config.seed=1', '--config.encoders.table.width=16') == 1
    sentence = 'holds a run of another config: encoders/table/width was 8 and is 16; seed was 0 and is 1.'
    assert sentence in one_error(capsys)
    assert train_tiny(finished, '--config.training.num_steps=6') == 1
    assert 'training/num_steps was 24 and is 6' in one_error(capsys)
    assert snapshot(finished) == before


@pytest.mark.parametrize('verb', ['evaluate', 'predict'])
def test_verbs_on_what_is_no_finished_run(verb, finished, copy, tmp_path, capsys):
    def run(workdir, *more):
        code = call(verb, f'--workdir={workdir}', *([f'--out={tmp_path}/out.jsonl'] * (verb == 'predict')), *more)
        assert code == 1
        assert not (tmp_path / 'out.jsonl').exists()
        return one_error(capsys)

    assert 'nothing holds no run (no config.json)' in run(tmp_path / 'nothing')
    assert run(finished, '--split=tset') == "no split 'tset'; choose one of ['test', 'train', 'validation']."
    shutil.rmtree(copy / 'checkpoints')
    assert 'checkpoints has no checkpoint yet; train the run first.' in run(copy)
    (copy / 'fitted.json').unlink()
    assert 'holds a run that has not begun to train; train it first.' in run(copy)
    (copy / 'config.json').write_text('{"seed"')
    (copy / 'fitted.json').write_text('{}')
    assert 'config.json is cut off or damaged' in run(copy)


def test_predict_does_not_overwrite(finished, tmp_path, capsys):
    out = tmp_path / 'out.jsonl'
    out.write_text('mine')
    assert call('predict', f'--workdir={finished}', f'--out={out}') == 1
    assert one_error(capsys) == f'--out={out} exists; choose another name, nothing is overwritten.'
    assert out.read_text() == 'mine'


def test_a_checkpoint_of_another_model(copy, capsys):
    config = json.loads((copy / 'config.json').read_text())
    config['encoders']['text']['width'] = 16
    (copy / 'config.json').write_text(json.dumps(config))
    before = what_training_made(copy)
    longer = ('--config.encoders.text.width=16', '--config.training.num_steps=26')
    assert [call('evaluate', f'--workdir={copy}'), train_tiny(copy, *longer)] == [1, 1]
    sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(sentences) == 2
    for sentence in sentences:
        assert 'is of another model: ' in sentence
        assert 'has the shape (8,) there and (16,) in this config; use the workdir of this config' in sentence
    assert what_training_made(copy) == before


@pytest.mark.parametrize('which', ['largest', '_METADATA', '_CHECKPOINT_METADATA'])
def test_a_broken_checkpoint(which, copy, capsys):
    files = [path for path in (copy / 'checkpoints/24').rglob('*') if path.is_file()]
    by_size = sorted(files, key=lambda path: path.stat().st_size)
    file = by_size[-1] if which == 'largest' else next(path for path in files if path.name == which)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    before = snapshot(copy)
    assert call('evaluate', f'--workdir={copy}') == 1
    sentence = one_error(capsys)
    assert 'checkpoints/24 is broken (' in sentence
    assert sentence.endswith('delete that folder to continue from an earlier checkpoint.')
    assert snapshot(copy) == before


# --- interruptions ---


def stop_slow_run(workdir: pathlib.Path, step: int, number: int) -> subprocess.CompletedProcess:
    """Calls the slow config in a process of its own and sends a signal as soon as a row of training is written."""
    command = [sys.executable, '-m', 'mmtl_jax.train', f'--config={TINY}:slow', f'--workdir={workdir}']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (workdir / 'metrics.jsonl').exists() and any(row['step'] == step for row in rows_of(workdir)):
            process.send_signal(number)
            break
        time.sleep(0.02)
    _, said = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, stderr=said)


def test_a_run_that_is_stopped_and_killed_ends_as_one_that_was_not(finished, tmp_path, no_report):
    workdir, saved = tmp_path / 'run', 0
    # Between two rows, whose measures are part of the checkpoint; on a busy machine the signal may be late for that.
    while saved % 4 == 0 and saved < 16:
        stopped = stop_slow_run(workdir, saved + 4, signal.SIGTERM)
        assert stopped.returncode == 130, stopped.stderr
        (saved,) = (int(path.name) for path in (workdir / 'checkpoints').iterdir())
    assert saved % 4, 'stopped at a row each time'
    assert stopped.stderr.splitlines()[-1] == f'stopped at step {saved}, which is saved; the same command continues.'
    killed = stop_slow_run(workdir, 20, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert rows_of(workdir)[-1]['step'] == 20, 'a row that is newer than the checkpoint'
    assert train_tiny(workdir, config=f'{TINY}:slow') == 0
    assert rows_of(workdir) == rows_of(finished)
    (run, *found), (other, *expected) = open_latest(workdir), open_latest(finished)
    assert_equal_to_the_bit(found[0], expected[0])
    assert found[1] == expected[1]
    following = []
    for experiment, host in ((run.experiment, found[1]), (other.experiment, expected[1])):
        batches = experiment.inputs.train_batches(split(run.mesh))
        batches.set_state(host.data)
        following.append(next(batches))
        batches.close()
    assert_equal_to_the_bit(*following)


def test_a_full_disk_leaves_the_earlier_checkpoint(finished, tmp_path, capsys, monkeypatch, no_report):
    save = checkpoint.ocp.training.Checkpointer.save

    def full(self, step, *arguments, **options):
        if step > 8:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return save(self, step, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp.training.Checkpointer, 'save', full)
        assert train_tiny(tmp_path / 'run') == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert 'no space left on the device' in sentence
    assert sentence.endswith('what was there before is unharmed: free some space and give the same command again.')
    assert train_tiny(tmp_path / 'run') == 0
    assert rows_of(tmp_path / 'run') == rows_of(finished)
