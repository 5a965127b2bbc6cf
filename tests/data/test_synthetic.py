"""The generated data: which modality tells which target, and that seeds and sizes do what they say."""

import collections

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data.builders import synthetic
from mmtl_jax.data.builders.synthetic import SyntheticConfig, make_example


def examples(number, **numbers):
    config = SyntheticConfig(name='test', **numbers)
    return [make_example(config, 'train', index) for index in range(number)]


def test_same_seed_same_scene_and_nothing_else():
    config, other = SyntheticConfig(name='a', num_train=5), SyntheticConfig(name='b', num_train=9, seed=1)
    first, again = make_example(config, 'train', 3), make_example(config, 'train', 3)
    assert first.keys() == again.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    for different in (
        make_example(other, 'train', 3), make_example(config, 'test', 3), make_example(config, 'train', 4)
    ):  # fmt: skip
        assert not np.array_equal(first['table'], different['table'])


def test_redundant_targets_are_in_picture_caption_and_tones():
    for example in examples(40):
        colour, shape = list(synthetic.COLOURS)[example['colour']], synthetic.SHAPES[example['shape']]
        assert f' {colour} {shape} ' in example['caption']
        assert example['transcript'][:2] == synthetic.TONES[example['shape']] + synthetic.TONES[example['colour']]
        assert (example['image'] == synthetic.COLOURS[colour]).all(axis=-1).any()
        assert example['group'] == 5 * example['shape'] + example['colour']


def test_unique_targets_are_in_their_modality_only():
    scenes = examples(400)
    for scene in scenes:
        assert synthetic.MATERIALS[scene['material']] in scene['caption']
        table = scene['table']
        assert scene['amount'] == pytest.approx(table[1] - 2 * table[2] + table[3] ** 2 / 2)
        assert scene['attributes'].tolist() == [
            scene['count'] > 0, 'kitchen' in scene['caption'] or 'table' in scene['caption'],
            len(scene['transcript']) > 3, table[1] > 0,
        ]  # fmt: skip
    # Area of the shape: the picture tells the number of shapes.
    ink = [np.mean([(s['image'].min(axis=-1) < 235).mean() for s in scenes if s['count'] == n]) for n in range(3)]
    assert ink[0] < ink[1] < ink[2]


def test_synergy_needs_both():
    scenes = examples(600)
    for scene in scenes:
        assert scene['parity'] == ((scene['count'] == 1) != (scene['table'][0] > 0))
        assert scene['total'] == scene['count'] + 1 + len(scene['transcript'])
    # Given the table alone, parity follows the share of even counts, 1/3 or 2/3, so no sign of the cell decides it;
    # given the picture alone it is a coin.
    for count in range(3):
        share = np.mean([scene['parity'] for scene in scenes if scene['count'] == count])
        assert abs(share - 0.5) < 0.12


def test_missing_modalities_and_labels_come_at_their_rate():
    scenes = examples(600, missing_rate=0.4, missing_label_rate=0.2)
    missing = collections.Counter()
    for scene in scenes:
        gone = {
            'image': scene['image'].shape == (1, 1, 3), 'caption': not scene['caption'],
            'speech': not len(scene['speech']), 'table': bool(np.isnan(scene['table']).all()),
        }  # fmt: skip
        assert not all(gone.values())
        missing.update([name for name, value in gone.items() if value])
        missing['shape'] += scene['shape'] == -1
        missing['amount'] += np.isnan(scene['amount'])
    # One modality of four is kept, so each is missing in 0.4 * 3/4 of the examples.
    for name in ('image', 'caption', 'speech', 'table'):
        assert abs(missing[name] / 600 - 0.3) < 0.06
    for name in ('shape', 'amount'):
        assert abs(missing[name] / 600 - 0.2) < 0.06


def test_sizes_do_not_collide_and_labels_have_names(data_dir):
    small = data.load_source('synthetic', 'test', data_dir=data_dir, builder_kwargs={'num_train': 0, 'num_test': 3})
    large = data.load_source('synthetic', 'test', data_dir=data_dir, builder_kwargs={'num_train': 0, 'num_test': 4})
    assert (len(small), len(large)) == (3, 4)
    assert small.class_names('shape') == synthetic.SHAPES
    assert small.class_names('caption') == ()
    expected = make_example(SyntheticConfig(name='test', num_train=0, num_test=3), 'test', 0)
    example = {s['id']: s for s in small}['test-000000']
    for key, value in expected.items():
        np.testing.assert_array_equal(example[key], value)


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        ({'num_train': -1}, 'num_train must be at least 0, got -1'),
        ({'missing_rate': 1.5}, 'missing_rate must be between 0 and 1, got 1.5'),
        ({'image_size': 4}, 'image_size must be at least 16 pixels, got 4'),
        ({'num_trains': 4}, "synthetic has no argument 'num_trains'"),
    ],
)
def test_bad_numbers(numbers, message, data_dir):
    with pytest.raises(ValueError, match=message):
        data.load_source('synthetic', 'train', data_dir=data_dir, builder_kwargs=numbers)
