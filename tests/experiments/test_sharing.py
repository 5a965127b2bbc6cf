"""The page of the sharing schemes, from runs made up."""

import json

import pytest

from configs import stamp_scenes
from experiments import sharing as experiment
from experiments.runs import Options, exceeds
from mmtl_jax import sharing

# Row -> by seed, what its tasks reach on the test split: all scores of a task are the same.
REACHED = {
    'category': [{'category': 0.50}, {'category': 0.54}],
    'objects': [{'objects': 0.40}, {'objects': 0.40}],
    'foreground': [{'foreground': 0.80}, {'foreground': 0.80}],
    'Hard': [{'category': 0.52, 'objects': 0.44, 'foreground': 0.80}],
    'MTAN': [{'category': 0.52, 'objects': 0.40, 'foreground': 0.72}] * 2,
}
PARAMETERS = {'encoders/image': 1000, 'sharing': 30}


def write_run(folder, reached, steps=600):
    """Writes what a finished run leaves, after 40 s of training."""
    folder.mkdir(parents=True)
    scores = {key: value for task, value in reached.items() for key in experiment.SCORES if key.startswith(f'{task}/')}
    for name, content in (
        ('summary', {'step': steps, 'test': scores, 'validation': {}}),
        ('resources', {'seconds': {'total': 50.0, 'compile': 10.0, 'input_wait': 5.0}, 'parameters': PARAMETERS}),
        ('config', {'training': {'num_steps': steps}}),
        ('environment', {'processor': 'Abacus', 'device_kind': 'cpu', 'devices': [0], 'packages': {'jax': '1.0'}}),
    ):
        (folder / f'{name}.json').write_text(json.dumps(content))


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Made-up runs, and where the page goes."""
    monkeypatch.setattr(experiment, 'labels_of_scenes', lambda: [3, -1, 0, 3])
    for row, seeds in REACHED.items():
        for seed, reached in enumerate(seeds):
            write_run(tmp_path / 'runs' / f'{row}-{seed}', reached)
    for folder in ('results', 'figures'):
        (tmp_path / 'docs' / folder).mkdir(parents=True)
    (tmp_path / 'runs' / experiment.DRAWN / experiment.FIGURE).write_bytes(b'drawn before')
    return Options(tmp_path / 'runs', tmp_path / 'docs' / 'results' / 'sharing.md', 2, False, experiment.ROWS)


def cells(page, first):
    """Returns the rows of the tables whose first cell is `first`."""
    rows = [[part.strip() for part in line.split('|')[1:-1]] for line in page.splitlines() if line.startswith('|')]
    return [row for row in rows if row[0] == first]


def test_schemes_stand_beside_the_networks_of_single_tasks(options):
    experiment.work(options)
    page = options.out.read_text()
    assert 'Machine: Abacus; cpu x 1; jax 1.0.' in page
    assert '--config.training.num_steps=600 --config.training.eval_every=200`' in page
    assert 'The most frequent category makes up 66.7 % of the test scenes' in page
    scores, costs = cells(page, 'single tasks')
    assert scores[1:] == ['2', *['52.0 ± 2.8'] * 2, *['40.0 ± 0.0'] * 4, '80.0 ± 0.0', '0.0 ± 1.8']
    assert costs[1:] == ['3,090', '90', '200', '120']
    assert cells(page, 'objects alone') == [['objects alone', '1,030', '30', '67', '40']]
    # A tenth better in one task of three, and a tenth worse.
    assert [row[-1] for row in cells(page, 'Hard')] == ['-3.3', '40']
    assert [row[-1] for row in cells(page, 'MTAN')] == ['3.3 ± 0.0', '40']
    # Of MTAN alone there are several seeds, and only in category do the runs differ.
    assert 'tasks: in category accuracy better none, worse none; in boxes AP50 better none, worse none; in' in page


def test_a_difference_counts_in_standard_deviations():
    # The standard deviation of .5 and .7 is .1 times the root of 2.
    assert exceeds([0.5, 0.7], [0.31, 0.31], max)
    assert not exceeds([0.5, 0.7], [0.32, 0.32], max)
    assert not exceeds([0.31, 0.31], [0.5, 0.7], max)
    assert not exceeds([0.5], [0.2, 0.3], max), 'one run has no spread'
    runs = [{**dict.fromkeys(experiment.SCORES.values(), score), experiment.DELTA: 0.0} for score in (0.5, 0.6)]
    high = [{**run, 'boxes AP50': 0.9 + place / 100} for place, run in enumerate(runs)]
    (sentence,) = experiment.better({experiment.SINGLE: runs, 'Hard': runs, 'MTAN': high})
    assert 'in boxes AP50 better MTAN, worse none; in foreground mIoU better none, worse none.' in sentence


def test_the_figure_stands_beside_the_page(options):
    experiment.work(options)
    assert f'](../figures/{experiment.FIGURE})' in options.out.read_text()
    assert (options.out.parents[1] / 'figures' / experiment.FIGURE).read_bytes() == b'drawn before'


def test_without_single_tasks_there_is_no_delta_and_without_its_run_no_figure(options):
    (run,) = options.of_row('Hard')
    found = {'Hard': [experiment.values_of(run)]}
    page = experiment.page(found, 600, [], figure=False)
    assert 'Δm, % ↓' not in page
    assert 'standard deviations' not in page
    assert '![' not in page
    assert cells(page, 'Hard')[0] == ['Hard', '1', '52.0', '52.0', *['44.0'] * 4, '80.0']


def test_the_budget_is_the_same_for_all(options):
    write_run(options.runs / 'MMoE-0', REACHED['Hard'][0], steps=300)
    with pytest.raises(ValueError, match=r'different budgets: .*MMoE-0 300 steps, .* 600 steps; give those of one'):
        experiment.work(options)


def test_without_a_finished_run_there_is_no_page(options, tmp_path):
    nothing = Options(tmp_path / 'nothing', options.out, 2, False, experiment.ROWS)
    with pytest.raises(ValueError, match='nothing holds no finished run; train some first'):
        experiment.work(nothing)


def test_each_row_is_a_command(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(experiment, 'train_run', lambda *arguments: given.append(arguments))
    for row in experiment.ROWS:
        experiment.train(tmp_path, row, 1, 60)
        config = stamp_scenes.get_config(experiment.config_of(row).partition(':')[2])
        tasks, scheme = ([row], 'Hard') if row in experiment.TASKS else (experiment.TASKS, row)
        assert (set(config.tasks), config.sharing.name) == (set(tasks), scheme)
    assert {row for row in experiment.ROWS if row not in experiment.TASKS} == set(sharing.__all__)
    budget = ('--config.training.num_steps=60', '--config.training.eval_every=20')
    assert given[0] == (tmp_path, 'configs/stamp_scenes.py:category', 1, *budget)
