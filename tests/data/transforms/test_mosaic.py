"""Four examples in one picture: what is in it, and that nothing but the seed decides on it."""

import jax
import numpy as np
import pytest

from mmtl_jax import data
from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from tests.data.transforms.scenes import LAYERS, check_agreement, scene

LAYERS = {key: value for key, value in LAYERS.items() if not key.startswith('keypoint')}
MOSAIC = {'name': 'mosaic', 'layers': LAYERS, 'size': (60, 90), 'rate': 1.0}


@pytest.fixture(scope='module')
def rows():
    source = data.SequenceSource([scene(seed=seed) for seed in range(9)], 'scenes')
    preprocess = data.build_preprocess(
        inputs={'image': 'image'},
        targets={
            'detection': {'boxes': 'objects/bbox', 'labels': 'objects/label'},
            'segmentation': {'key': 'mask', 'kind': 'mask'},
        },
        augment=[{**MOSAIC, 'rate': 0.7}, {'name': 'random_spatial', 'layers': LAYERS}],
    )
    return data.prepare(source, preprocess)


def loader(rows, **options):
    return data.train_loader(rows, batch_size=4, seed=3, layout=data.make_layout(rows), **options)


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


@pytest.mark.parametrize('seed', range(10))
def test_boxes_and_masks_of_all_four_agree(seed):
    rng = np.random.default_rng(seed)
    step = build({**MOSAIC, 'size': (64, 80)}, transforms)
    whole = step(scene(seed=seed), rng, lambda rng: scene(seed=int(rng.integers(50))))
    assert whole['image'].shape == (64, 80, 3)
    assert len(whole['objects/bbox']) > 3
    check_agreement({**whole, 'keypoints': np.zeros((0, 3))}, slack=1.0)
    assert whole['mask'].max() < 255, 'no part of it is empty'


def test_the_first_quarter_is_of_the_example_itself():
    def blank(colour):
        return {'image': np.full((20, 20, 3), colour, np.uint8)}

    step = build({'name': 'mosaic', 'layers': {}, 'size': 20, 'rate': 1.0, 'centre': (0.5, 0.5)}, transforms)
    colours = iter((2, 3, 4))
    image = step(blank(1), np.random.default_rng(0), lambda _: blank(next(colours)))['image'][..., 0]
    expected = np.kron([[1, 2], [3, 4]], np.ones((10, 10)))
    np.testing.assert_array_equal(image, expected)


def test_a_layer_that_one_of_them_lacks_is_missing():
    step = build(MOSAIC, transforms)
    whole = step(scene(), np.random.default_rng(0), lambda _: {**scene(seed=1), 'depth': None, 'objects/bbox': None})
    assert whole['depth'] is None
    assert whole['objects/bbox'] is None
    assert whole['mask'].shape == (60, 90, 1)


def test_what_describes_one_example_is_forgotten():
    step = build({**MOSAIC, 'forget': ('label',)}, transforms)
    whole = step({**scene(), 'label': 3}, np.random.default_rng(0), lambda _: scene(seed=1))
    assert whole['label'] is None
    still = build({**MOSAIC, 'rate': 0.0, 'forget': ('label',)}, transforms)
    assert still({**scene(), 'label': 3}, np.random.default_rng(0), lambda _: scene(seed=1))['label'] == 3

    def preprocess(*augment):
        targets = {'detection': {'boxes': 'objects/bbox', 'labels': 'objects/label'}, 'category': 'classes'}
        return data.build_preprocess(inputs={'image': 'image'}, targets=targets, augment=augment)

    with pytest.raises(ValueError, match=r"'mosaic' puts several examples .* target 'category' \(key 'classes'\)"):
        preprocess(MOSAIC)
    preprocess({**MOSAIC, 'forget': ('classes',)})
    preprocess(MOSAIC, {'name': 'multi_hot', 'key': 'objects/label', 'num_classes': 9, 'out': 'classes'})


def test_batches_depend_on_the_seed_alone_and_a_resume_continues_them(rows):
    straight = loader(rows)
    batches = [next(straight) for _ in range(6)]
    state = straight.get_state()
    after = next(straight)
    threads, resumed = loader(rows, num_threads=4), loader(rows)
    assert all(same(batch, next(threads)) for batch in batches)
    resumed.set_state(state)
    assert same(after, next(resumed))
    boxes = batches[0].targets['detection']['boxes']
    assert boxes.values.shape == (4, 16, 4), 'room for the boxes of four examples, in multiples of eight'
    assert max(int(batch.targets['detection']['boxes'].mask.sum(axis=1).max()) for batch in batches) > 3
    other = data.train_loader(rows, batch_size=4, seed=4, layout=data.make_layout(rows))
    assert not same(batches[0], next(other))
    for each in (straight, threads, resumed, other):
        each.close()


def test_uncached_rows_give_the_same_batches(rows):
    reading = data.prepare(rows.source, rows.preprocess, cache_bytes=0)
    one, other = loader(rows), loader(reading)
    assert all(same(next(one), next(other)) for _ in range(2))
    one.close()
    other.close()


def test_bad_examples_are_not_drawn():
    examples = [scene(seed=0), *({**scene(seed=seed), 'objects/label': np.zeros(9)} for seed in range(1, 5))]
    preprocess = data.build_preprocess(
        inputs={'image': 'image'},
        targets={'boxes': {'boxes': 'objects/bbox', 'labels': 'objects/label'}},
        augment=[MOSAIC],
    )
    rows = data.prepare(data.SequenceSource(examples, 'scenes'), preprocess, bad_examples='skip')
    assert len(rows.bad) == 4
    assert rows.draw(np.random.default_rng(0))['objects/label'].shape == (3,)
    rows._cache[0] = None
    with pytest.raises(ValueError, match="'scenes': 100 examples drawn at random are all bad"):
        rows.draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'centre': (0.0, 0.5)}, r'centre must be two increasing shares between 0 and 1, got \(0.0, 0.5\)'),
        ({'rate': 1.5}, 'mosaic: rate must be between 0 and 1, got 1.5'),
        ({'layers': {'keypoints': 'pose'}}, 'four pictures have no common keypoints'),
    ],
)
def test_what_cannot_be_built(changes, message):
    with pytest.raises(ValueError, match=message):
        build({**MOSAIC, **changes}, transforms)


def test_outside_of_the_loader_one_sentence_says_what_is_lacking():
    with pytest.raises(ValueError, match='mosaic needs the other examples of a data set'):
        build(MOSAIC, transforms)(scene(), np.random.default_rng(0))
