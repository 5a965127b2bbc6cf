"""The page of the fusions, from runs made up."""

import json

import pytest

from configs import stamps, stamps_pretrained
from experiments import fusion as experiment
from experiments.runs import Options
from mmtl_jax import fusion

# Row -> accuracy of the category by seed, on validation and test alike.
ACCURACIES = {
    'image': [0.70, 0.72],
    'caption': [0.80, 0.82],
    'speech': [0.30, 0.32],
    'Concat': [0.90, 0.92],
    'Sum': [0.81, 0.85],
    'best-without_dropout': [0.90, 0.92],
    'best-with_dropout': [0.89, 0.91],
    'rest-caption_speech': [0.84, 0.86],
    'rest-image_speech': [0.75, 0.77],
    'rest-image_caption': [0.90, 0.92],
    'scratch-Concat': [0.6, 0.7],
}
# What the absence of a modality costs.
COSTS = {'image': 0.1, 'caption': 0.2, 'speech': 0.0}


def write_run(folder, accuracy, cost):
    folder.mkdir(parents=True)
    values = {'category/accuracy': accuracy, 'category/macro_f1': 0.5, 'attributes/macro_f1': 0.5}
    used = {'seconds': {'total': 50.0, 'compile': 10.0, 'input_wait': 5.0}, 'parameters': {'fusion': 7}}
    subsets = {
        'caption_image_speech': {'modalities': ['caption', 'image', 'speech'], 'values': values},
        **{
            f'without_{name}': {
                'modalities': [other for other in COSTS if other != name],
                'values': {**values, 'category/accuracy': accuracy - cost * COSTS[name]},
            }
            for name in COSTS
        },
    }
    shapley = {'category': dict.fromkeys(COSTS, 0.25)}
    for name, content in (
        ('summary', {'step': 400, 'test': values, 'validation': values}),
        ('resources', used),
        ('subsets-test', {'subsets': subsets, 'shapley': shapley}),
        ('environment', {'processor': 'Abacus', 'device_kind': 'cpu', 'devices': [0], 'packages': {'jax': '1.0'}}),
    ):
        (folder / f'{name}.json').write_text(json.dumps(content))


@pytest.fixture
def lines(tmp_path):
    """The page's lines."""
    for row, seeds in ACCURACIES.items():
        for seed, accuracy in enumerate(seeds):
            write_run(tmp_path / 'runs' / f'{row}-{seed}', accuracy, 0.5 if row.endswith('with_dropout') else 1.0)
    experiment.work(Options(tmp_path / 'runs', tmp_path / 'page.md', 2, False, experiment.ROWS))
    return (tmp_path / 'page.md').read_text().splitlines()


def cells(lines, first):
    """Returns the rows of the tables whose first cell is `first`."""
    rows = [[part.strip() for part in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
    return [row for row in rows if row[0] == first]


def test_fusions_stand_beside_single_modalities(lines):
    assert cells(lines, 'caption')[0] == ['caption', '2', '0.810 ± 0.014', '0.500 ± 0.000', '0.500 ± 0.000']
    assert cells(lines, 'Concat')[:2] == [
        ['Concat', '2', '0.910 ± 0.014', '0.500 ± 0.000', '0.500 ± 0.000'],
        ['Concat', '7', '100', '40'],
    ]


def test_only_a_gain_of_two_deviations_counts(lines):
    sentence = next(line for line in lines if line.startswith('On category accuracy'))
    assert 'is caption, 0.810 ± 0.014. It is beaten by 1 of 2 fusions by more than 2 standard deviations of' in sentence
    assert sentence.count('(Concat)') == 2
    assert any('On category macro-F1' in line and 'none of 2 fusions' in line for line in lines)


def test_the_deviation_of_the_difference_is_the_larger_one():
    runs = {'caption': [0.5, 0.7], 'Sum': [0.85, 1.05]}
    found = {row: [dict.fromkeys(experiment.SCORES, value) for value in values] for row, values in runs.items()}
    # The gain is .35; twice the deviation is .28 of either row, .4 of the difference.
    sentence = experiment.gains(found)[0]
    assert '1 of 1 fusions by more than 2 standard deviations of either row (Sum), and by none of 1' in sentence


def test_the_best_on_validation_is_shown_without_its_modalities(lines):
    assert '## Every subset of the modalities: Concat' in lines
    assert cells(lines, 'without + image')[0][2] == '0.810 ± 0.014'
    assert cells(lines, 'image')[-1] == ['image', '2', '0.250 ± 0.000']
    assert cells(lines, 'best-without_dropout') == [
        ['best-without_dropout', '2', '0.100 ± 0.000', '0.200 ± 0.000', '0.000 ± 0.000']
    ]
    assert cells(lines, 'best-with_dropout')[0][2:] == ['0.050 ± 0.000', '0.100 ± 0.000', '0.000 ± 0.000']
    assert cells(lines, 'trained on the rest')[0][2:] == ['0.060 ± 0.000', '0.150 ± 0.000', '0.000 ± 0.000']
    sentence = next(line for line in lines if line.startswith('Of the costs above 0.01'))
    assert 'modality dropout leaves 50% without image and 50% without caption, and' in sentence
    assert sentence.endswith('the training on the others alone 60% without image and 75% without caption.')


def test_the_best_and_concat_stand_there_from_scratch(lines):
    assert cells(lines, 'Concat')[2:] == [
        ['Concat', '2', '0.650 ± 0.071', '0.500 ± 0.000', '0.500 ± 0.000'],
        ['Concat', '7', '100', '40'],
    ]
    assert experiment.from_scratch(['Sum', 'Mean', 'Gated', 'FiLM', 'MLB', 'MFB']) == [
        'Sum', 'Mean', 'Gated', 'FiLM', 'MLB', 'Concat'
    ]  # fmt: skip


def test_every_fusion_is_a_row_whose_config_has_its_objectives():
    for row in experiment.ROWS:
        config = stamps_pretrained.get_config(experiment.config_of(row).partition(':')[2])
        assert set(config.balancing.weights) == set(config.tasks)
    for name, objectives in stamps.OBJECTIVES.items():
        for config in (stamps_pretrained.get_config(f'image_caption//{name}'), stamps.get_config(f'//{name}')):
            assert config.fusion.name == name
            assert {config.tasks[task].get('objective') for task in config.tasks} - {None} == set(objectives)
    assert set(stamps.OBJECTIVES) <= set(fusion.__all__)


def test_without_a_finished_run_there_is_no_page(tmp_path):
    with pytest.raises(ValueError, match='holds no finished run of a fusion; train some first'):
        experiment.work(Options(tmp_path, tmp_path / 'page.md', 2, False, experiment.ROWS))
