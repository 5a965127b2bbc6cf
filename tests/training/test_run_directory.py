"""The run directory: whose it is, and what its environment tells."""

import json
import os

import pytest

from mmtl_jax.core.files import write_json_atomic
from mmtl_jax.training.run_directory import check_workdir, claim, config_difference, environment, processor

CONFIG = {'seed': 0, 'training': {'num_steps': 10}, 'data': {'steps': ({'name': 'resize'},), 'eval_steps': {}}}


def changed(**sections):
    return {**CONFIG, **sections}


def test_a_new_and_an_empty_directory_are_free(tmp_path):
    check_workdir(tmp_path / 'new', CONFIG)
    check_workdir(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_claimed_directory_is_its_configs_own(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / 'metrics.jsonl').touch()
    check_workdir(tmp_path, CONFIG)
    check_workdir(tmp_path, changed(training={'num_steps': 11}))
    with pytest.raises(ValueError, match='another config: training/num_steps was 10 and is 9'):
        check_workdir(tmp_path, changed(training={'num_steps': 9}))


def test_a_run_that_never_took_a_step_may_get_another_config(tmp_path):
    claim(tmp_path, CONFIG)
    check_workdir(tmp_path, changed(seed=1))


def test_a_damaged_config_is_said_to_be_damaged(tmp_path):
    (tmp_path / 'config.json').write_text('{"seed": ')
    (tmp_path / 'metrics.jsonl').touch()
    with pytest.raises(ValueError, match=r'config.json is cut off or damaged'):
        check_workdir(tmp_path, CONFIG)


def test_differences_are_named_by_their_path(tmp_path):
    write_json_atomic(tmp_path / 'saved.json', CONFIG)
    saved = json.loads((tmp_path / 'saved.json').read_text())
    assert config_difference(saved, json.loads(json.dumps(CONFIG))) == []
    other = changed(seed=1, fusion='Sum', data={'steps': [], 'eval_steps': {'a': 1}})
    assert config_difference(saved, other) == [
        "data/eval_steps was {} and is '(absent)'",
        "data/eval_steps/a was '(absent)' and is 1",
        "data/steps was [{'name': 'resize'}] and is []",
        "fusion was '(absent)' and is 'Sum'",
        'seed was 0 and is 1',
    ]


def test_the_environment_is_what_a_reader_needs_to_repeat_a_run():
    found = environment()
    assert found['packages']['jax']
    assert len(found['devices']) == 8
    assert found['process_count'] == 1
    json.dumps(found)


def test_the_processor_is_told_with_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {*range(8)}, raising=False)
    assert processor().startswith('8 cores of ')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {3, 5})
    assert processor().startswith('2 of 8 cores of ')
    monkeypatch.delattr(os, 'sched_getaffinity')
    assert processor().startswith('8 cores of ')
