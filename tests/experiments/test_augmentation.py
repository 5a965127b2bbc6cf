"""The figures of augmentation, on made-up scenes."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments import augmentation
from tests.data.transforms.scenes import scene


def made_up(seed):
    example = scene(192, 192, seed)
    return example | {
        'segmentation_mask': example['mask'],
        'instance_mask': example['instances'],
        'objects/id': np.arange(1, 4),
        'objects/area': np.array([(example['instances'] == number).sum() for number in range(1, 4)]),
        'caption': 'a rectangle left of another rectangle and one more',
    }


@pytest.fixture
def examples():
    return [{**example, 'keypoints': augmentation.ends(example)} for example in map(made_up, range(4))]


def test_the_ends_are_those_of_the_largest_object():
    example = made_up(0)
    number = example['objects/area'].argmax()
    top, left, bottom, right = example['objects/bbox'][number]
    ends = augmentation.ends(example)
    half = 0.5 / 192
    expected = [top + half, bottom - half, left + half, right - half]
    np.testing.assert_allclose([ends[0, 0], ends[1, 0], ends[2, 1], ends[3, 1]], expected, atol=1e-6)


@pytest.mark.parametrize('title', augmentation.DONE)
def test_every_augmentation_changes_the_scene(examples, title):
    moved = augmentation.augment(augmentation.DONE[title], examples[0], examples)
    assert np.array_equal(moved['image'], examples[0]['image']) == (title == 'as it is')
    assert len(moved['objects/bbox']) == len(moved['objects/label'])


def test_the_figures_are_drawn(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation, 'scenes', lambda: examples)
    names = type('Source', (), {'class_names': staticmethod(lambda key: tuple('abcdefgh'))})
    monkeypatch.setattr(augmentation.data, 'load_source', lambda *_, **__: names)
    augmentation.main(tmp_path)
    for name in ('augmentation', 'stamp_scenes', 'depth_of_solids'):
        picture = Image.open(io.BytesIO((tmp_path / f'{name}.png').read_bytes()))
        assert min(picture.size) > 500
        assert len(np.unique(np.asarray(picture.convert('L')))) > 50
