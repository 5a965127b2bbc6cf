"""The tables of the stamps from published towers, from runs made up."""

import json

import pytest

from experiments import stamps_pretrained
from experiments.runs import Options

TEST = {'category/accuracy': 0.875, 'category/macro_f1': 0.75, 'retrieval/image_to_caption_r5': 0.5}


def write_run(folder, values, trained=None):
    folder.mkdir(parents=True)
    (folder / 'summary.json').write_text(json.dumps({'test': values, 'validation': values}))
    environment = {'processor': 'Abacus', 'device_kind': 'cpu', 'devices': [0], 'packages': {'jax': '1.0'}}
    (folder / 'environment.json').write_text(json.dumps(environment))
    if trained is not None:
        used = {
            'seconds': {'total': 100.0, 'compile': 30.0, 'input_wait': 5.0},
            'peak_memory_bytes': 2_000_000_000,
            'trained_parameters': trained,
        }
        (folder / 'resources.json').write_text(json.dumps(used))


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The page's lines; without torchvision's list nothing is retrieved without training."""
    monkeypatch.setattr(stamps_pretrained, 'CLASSES', 'package:no_such_package/names.py')
    stamps_pretrained.class_names.cache_clear()
    for seed, accuracy in enumerate((0.875, 0.925)):
        values = TEST | {'category/accuracy': accuracy}
        write_run(tmp_path / 'runs' / f'image+caption-{seed}', values, {'fusion': 40, 'heads/category': 2})
    write_run(tmp_path / 'runs' / 'scratch-image-0', TEST)
    rows = tuple(stamps_pretrained.ROWS)
    stamps_pretrained.work(Options(tmp_path / 'runs', tmp_path / 'page.md', 3, False, rows))
    return (tmp_path / 'page.md').read_text().splitlines()


def rows_below(lines, heading):
    start = lines.index(heading) + 1
    rows = []
    for line in lines[start:]:
        if line.startswith('|'):
            rows.append([part.strip() for part in line.split('|')[1:-1]])
        elif rows:
            return rows
    return rows


def test_scores_of_a_split(lines):
    header, _, *rows = rows_below(lines, '## Test')
    assert header == ['run', 'seeds', 'category accuracy', 'category macro-F1']
    assert rows == [
        ['image+caption', '2', '0.900 ± 0.035', '0.750 ± 0.000'],
        ['scratch-image', '1', '0.875', '0.750'],
    ]


def test_retrieval_leaves_out_what_has_another_gallery(lines):
    assert rows_below(lines, 'R@5 (test):')[2:] == [['image+caption', '2', '0.500 ± 0.000']]


def test_training_is_what_remains_beside_compiling_and_evaluating(lines):
    assert rows_below(lines, '## Cost')[2:] == [['image+caption', '2', '42 ± 0', '70 ± 0', '2000 ± 0']]
    assert 'Machine: Abacus; cpu x 1; jax 1.0.' in lines


def test_every_row_has_a_config_that_takes_its_argument():
    for config in stamps_pretrained.ROWS.values():
        name, _, argument = config.removesuffix('.py').partition(':')
        module = __import__(name.removesuffix('.py').replace('/', '.'), fromlist=['get_config'])
        assert module.get_config(argument).is_locked
