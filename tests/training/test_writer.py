"""`metrics.jsonl`: every row once, whatever kills the run."""

import errno
import json
import math
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.training.writer import MetricsWriter, read_metrics


class Clock:
    """Goes on by one second at each look."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """Returns the time."""
        self.now += 1
        return self.now


def keys(path):
    return [(row['step'], row['split']) for row in read_metrics(path)]


@pytest.fixture(name='path')
def _path(tmp_path):
    path = tmp_path / 'run' / 'metrics.jsonl'
    with MetricsWriter(path, clock=Clock()) as writer:
        for step in (0, 10, 20, 30):
            writer.write(step, 'train', {'category/loss': 1.0 / (step + 1)})
            writer.write(step, 'validation', {'category/accuracy': step / 30})
    return path


def test_rows_are_plain_json_objects_of_floats(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    values = {
        'a/loss': jnp.float32(0.5),
        'b/loss': np.float64(2),
        'skipped_steps': 3,
        'c/loss': math.nan,
        'd/loss': np.inf,
    }
    with MetricsWriter(path, clock=Clock()) as writer:
        writer.write(np.int64(5), 'train', values)
        assert path.read_bytes().endswith(b'}\n'), 'each line is in the file at once'
    row = json.loads(path.read_text())
    assert row == {
        'step': 5, 'split': 'train', 'seconds': 1.0,
        'a/loss': 0.5, 'b/loss': 2.0, 'skipped_steps': 3.0, 'c/loss': None, 'd/loss': None,
    }  # fmt: skip
    (read,) = read_metrics(path)
    assert math.isnan(read['c/loss'])
    assert isinstance(read['skipped_steps'], float)


def test_a_resume_drops_later_rows_and_repeats_none(path):
    before = path.read_text().splitlines()
    with MetricsWriter(path, resume_step=20) as writer:
        assert path.read_text().splitlines() == before[:6]
        writer.write(20, 'validation', {'category/accuracy': 0.0})
        writer.write(20, 'test', {'category/accuracy': 0.5})
        writer.write(30, 'train', {'category/loss': 9.0})
    assert keys(path) == [(s, k) for s in (0, 10, 20) for k in ('train', 'validation')] + [(20, 'test'), (30, 'train')]
    assert path.read_text().splitlines()[:6] == before[:6]


def test_seconds_go_on_after_a_resume(path):
    last = read_metrics(path)[-1]['seconds']
    with MetricsWriter(path, resume_step=30, clock=Clock()) as writer:
        writer.write(40, 'train', {})
        assert writer.seconds > last
    seconds = [row['seconds'] for row in read_metrics(path)]
    assert seconds == sorted(seconds)
    assert seconds[-1] == last + 1


def test_a_new_run_starts_before_its_first_step(path):
    with MetricsWriter(path):
        assert keys(path) == [(0, 'train'), (0, 'validation')]


@pytest.mark.parametrize('cut', [1, 5, 30])
def test_a_torn_last_line_is_left_out_and_repaired(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert keys(path)[-1] == (30, 'train')
    with MetricsWriter(path, resume_step=30) as writer:
        writer.write(30, 'validation', {'category/accuracy': 1.0})
    assert keys(path)[-2:] == [(30, 'train'), (30, 'validation')]
    assert read_metrics(path)[-1]['category/accuracy'] == 1.0


def test_opening_twice_changes_nothing(path):
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    MetricsWriter(path, resume_step=30).close()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    assert [file.name for file in path.parent.iterdir()] == ['metrics.jsonl']


@pytest.mark.parametrize('damage', ['{"step": 1, "spl', '[1, 2]', '3', '{"loss": 1.0}'])
def test_a_damaged_line_is_named(path, damage):
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([lines[0], damage, *lines[1:]]) + '\n')
    with pytest.raises(ValueError, match='line 2 is no row of metrics'):
        read_metrics(path)
    with pytest.raises(ValueError, match='line 2 is no row of metrics'):
        MetricsWriter(path)


def test_bad_rows_are_refused(path):
    with MetricsWriter(path, resume_step=30) as writer:
        writer.write(40, 'train', {})
        with pytest.raises(ValueError, match="step 40, split 'train' is written already"):
            writer.write(40, 'train', {})
        with pytest.raises(ValueError, match="a value cannot be named 'seconds'"):
            writer.write(50, 'train', {'seconds': 1.0})


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r'there is no file .*metrics.jsonl'):
        read_metrics(tmp_path / 'metrics.jsonl')


def test_a_full_disk_leaves_the_file_readable(path):
    before = path.read_bytes()
    with MetricsWriter(path, resume_step=30) as writer:
        writer._file = FullDisk(writer._file, room=20)
        with pytest.raises(OSError, match=r'no space left .*metrics.jsonl.*free some space') as caught:
            writer.write(40, 'train', {'category/loss': 1.0})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before


class FullDisk:
    """A file that takes `room` bytes and then has no space left."""

    def __init__(self, file, room):
        self.file, self.room, self.fileno, self.close = file, room, file.fileno, file.close

    def write(self, data):
        """Returns how many bytes it took."""
        if not self.room:
            raise OSError(errno.ENOSPC, 'No space left on device')
        taken, self.room = self.file.write(data[: self.room]), 0
        return taken


def test_tensorboard_gets_the_same_values(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def flush(self):
            seen.append('flush')

        def close(self):
            seen.append('close')

    monkeypatch.setitem(sys.modules, 'tensorboardX', types.SimpleNamespace(SummaryWriter=SummaryWriter))
    with MetricsWriter(tmp_path / 'metrics.jsonl', resume_step=4, tensorboard=tmp_path / 'board') as writer:
        writer.write(5, 'train', {'category/loss': 0.5})
    assert seen == [(str(tmp_path / 'board'), 5), ('category/loss/train', 0.5, 5), 'flush', 'close']


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(ValueError, match=r'pip install .mmtl_jax\[tensorboard\]'):
        MetricsWriter(tmp_path / 'metrics.jsonl', tensorboard=tmp_path)
    assert not (tmp_path / 'metrics.jsonl').exists()
