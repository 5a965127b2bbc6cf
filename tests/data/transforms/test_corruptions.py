"""Corruptions: what holds for every one of them, and the formula of each."""

import numpy as np
import pytest

from mmtl_jax.core.build import build
from mmtl_jax.data import CORRUPTIONS, transforms
from mmtl_jax.data.transforms.corruptions_text import NEIGHBOURS

RNG = np.random.default_rng(3)
TEXT = 'The quick brown fox jumps over the lazy dog, 1234567890 times'
VALUES = {
    # It gets lighter towards a corner, so that a rotation changes the more the further it goes.
    'image': (RNG.integers(0, 40, (24, 36, 3)) + np.add.outer(range(24), range(36))[..., None] * 3).astype(np.uint8),
    'audio': RNG.normal(size=8000).astype(np.float32),
    'text': TEXT,
    'table': RNG.normal(size=400).astype(np.float32),
}
FRAMES = RNG.normal(size=(60, 32)).astype(np.float16)
NAMES = [f'{kind}_{short}' for kind, names in CORRUPTIONS.items() for short in names]


def value_of(name):
    return FRAMES if name == 'audio_masks' else VALUES[name.split('_')[0]]


def corrupt(name, value, level, seed=0, **options):
    transform = build({'name': name, 'key': 'x', 'level': level, **options}, transforms)
    return transform({'x': value, 'y': 1}, np.random.default_rng(seed))['x']


def distance(name, value, changed):
    """Returns how far a value is from what it was, above 0 for any change."""
    if name.startswith('text'):
        return abs(len(value) - len(changed)) + sum(a != b for a, b in zip(value, changed, strict=False))
    difference = np.nan_to_num(np.asarray(changed, np.float64), nan=9.0) - np.asarray(value, np.float64)
    return float(np.abs(difference).mean())


def same(one, other):
    return one == other if isinstance(one, str) else np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize('name', NAMES)
def test_every_corruption(name):
    value = value_of(name)
    before = value if isinstance(value, str) else value.copy()
    assert corrupt(name, value, 0.0) is value, 'level 0 changes nothing, to the bit'
    levels = [corrupt(name, value, level) for level in (0.1, 0.4, 1.0)]
    assert same(value, before), 'the argument stays what it is'
    for changed, level in zip(levels, (0.1, 0.4, 1.0), strict=True):
        assert same(changed, corrupt(name, value, level)), 'the same seed does the same damage'
        if not isinstance(value, str):
            assert (changed.shape, changed.dtype) == (value.shape, value.dtype)
    far = [distance(name, value, changed) for changed in levels]
    assert 0 < far[0] < far[1] < far[2]
    assert corrupt(name, None, 1.0) is None, 'what is missing stays missing'


@pytest.mark.parametrize('name', [name for name in NAMES if name not in ('image_blur', 'image_contrast')])
def test_another_seed_does_other_damage(name):
    results = [corrupt(name, value_of(name), 0.4, seed) for seed in range(4)]
    assert not all(same(results[0], other) for other in results[1:])


@pytest.mark.parametrize('name', NAMES)
def test_what_does_not_fit(name):
    with pytest.raises(ValueError, match=f'{name}: level must be between 0 and 1, got 1.5'):
        corrupt(name, value_of(name), 1.5)
    wrong = np.zeros((2, 3, 4, 5), np.float32)
    with pytest.raises(ValueError, match=rf"{name} needs .*, but 'x' is an array of float32 and shape \(2, 3, 4, 5\)"):
        corrupt(name, wrong, 0.5)


@pytest.mark.parametrize('name', [f'image_{short}' for short in CORRUPTIONS['image']])
@pytest.mark.parametrize('shape', [(24, 36), (24, 36, 1)])
def test_grey_pictures(name, shape):
    image = VALUES['image'][..., :1].reshape(shape)
    changed = corrupt(name, image, 0.5)
    assert changed.shape == shape
    assert not np.array_equal(changed, image)


def test_noise_is_cut_to_the_range_and_does_not_wrap_around():
    white, black = np.full((50, 50, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8)
    for image, away in ((white, -1), (black, 1)):
        changed = corrupt('image_noise', image, 0.1).astype(int)
        error = away * (changed - image)
        assert (error >= 0).all()
        # Half of the noise is cut: the mean of max(0, N(0, s^2)) is s / sqrt(2 pi).
        assert error.mean() == pytest.approx(25.5 / np.sqrt(2 * np.pi), rel=0.05)


def test_blur_keeps_the_mean_and_loses_the_detail():
    image = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    changed = corrupt('image_blur', image, 1.0)
    assert changed.mean() == pytest.approx(image.mean(), abs=3)
    assert changed.std() < 0.35 * image.std()


def test_contrast_shrinks_to_the_mean():
    image = VALUES['image']
    assert corrupt('image_contrast', image, 0.25).std() == pytest.approx(0.75 * image.std(), rel=0.01)
    assert np.unique(corrupt('image_contrast', image, 1.0)).tolist() == [np.rint(image.mean())]


def test_a_rotation_of_the_worst_level_stands_on_its_head():
    square = VALUES['image'][:24, :24]
    # Both directions meet there; bilinear sampling may round by one.
    np.testing.assert_allclose(corrupt('image_rotation', square, 1.0).astype(int), square[::-1, ::-1], atol=1)
    framed = np.zeros((20, 30, 3), np.uint8)
    framed[5:15, 8:22] = 200
    assert corrupt('image_rotation', framed, 0.25)[0, 0].tolist() == [0, 0, 0]


def test_occlusion_covers_its_share_of_the_area():
    image = np.zeros((100, 200, 3), np.uint8)
    assert (corrupt('image_occlusion', image, 0.25) == 127).mean() == pytest.approx(0.25)
    assert (corrupt('image_occlusion', image, 1.0) == 127).all()


@pytest.mark.parametrize(('level', 'decibels'), [(0.2, 30.0), (0.8, 0.0), (1.0, -10.0)])
def test_noise_of_a_signal_to_noise_ratio(level, decibels):
    sound = VALUES['audio']
    noise = corrupt('audio_snr', sound, level) - sound
    # 8000 samples of noise have a power within a few percent of its expectation: 5 % are .2 dB.
    assert 10 * np.log10(np.mean(sound**2) / np.mean(noise**2)) == pytest.approx(decibels, abs=0.2)


def test_whole_numbers_are_cut_to_their_range():
    loud = np.full(1000, 32000, np.int16)
    changed = corrupt('audio_snr', loud, 0.8)
    assert changed.dtype == np.int16
    assert changed.max() == 32767, 'and what left it did not wrap around'
    assert (changed > 0).mean() > 0.8


def test_dropout_of_sound_keeps_what_it_does_not_drop():
    sound = VALUES['audio']
    changed = corrupt('audio_dropout', sound, 0.3, segment=10)
    lost = (changed == 0).reshape(-1, 10)
    assert (lost.all(axis=1) | ~lost.any(axis=1)).all(), 'segments are lost as a whole'
    assert lost.mean() == pytest.approx(0.3, abs=0.06)  # 800 segments: four deviations
    np.testing.assert_array_equal(changed[changed != 0], sound[changed != 0])
    assert not corrupt('audio_dropout', sound, 1.0).any()


def test_masks_are_at_most_the_level_of_each_axis():
    changed = corrupt('audio_masks', FRAMES, 0.5)
    masked = changed == np.float16(FRAMES.mean(dtype=np.float32))
    assert 15 <= masked.all(axis=1).sum() <= 30
    assert 8 <= masked.all(axis=0).sum() <= 16
    np.testing.assert_array_equal(changed[~masked], FRAMES[~masked])


def test_swaps_keep_the_letters_and_stay_inside_words():
    changed = corrupt('text_swap', TEXT, 0.5)
    assert [sorted(word) for word in changed.split(' ')] == [sorted(word) for word in TEXT.split(' ')]


def test_typos_hit_neighbouring_keys_alone():
    assert set('qzwsx') & set(NEIGHBOURS['a']) == set('qzws')
    assert all(letter in NEIGHBOURS[other] for letter, others in NEIGHBOURS.items() for other in others)
    changed = corrupt('text_typos', TEXT, 1.0)
    for old, new in zip(TEXT, changed, strict=True):
        assert new == old if old in ' ,' else new.lower() in NEIGHBOURS[old.lower()]
        assert old.isupper() == new.isupper() or new.isdigit()
    assert corrupt('text_typos', 'Пингвин', 1.0) == 'Пингвин'


def test_deletion_keeps_the_order():
    left = iter(TEXT)
    assert all(letter in left for letter in corrupt('text_deletion', TEXT, 0.4))
    assert corrupt('text_deletion', TEXT, 1.0) == ''


def test_cells_are_lost_and_the_others_stay():
    row = VALUES['table']
    changed = corrupt('table_dropout', row, 0.3)
    assert np.isnan(changed).mean() == pytest.approx(0.3, abs=0.1)  # 400 cells: four deviations
    np.testing.assert_array_equal(changed[~np.isnan(changed)], row[~np.isnan(changed)])


def test_noise_of_a_table_has_the_deviation_of_its_column():
    row, deviation = np.array([1.0, 2.0, np.nan, 4.0], np.float32), [1.0, 10.0, 5.0, 0.0]
    noise = np.stack([corrupt('table_noise', row, 0.5, seed, deviation=deviation) - row for seed in range(400)])
    assert np.isnan(noise[:, 2]).all()
    # The deviation of 400 draws is known to 3.5 %.
    np.testing.assert_allclose(noise.std(axis=0)[[0, 1, 3]], [0.5, 5.0, 0.0], rtol=0.12)
    with pytest.raises(ValueError, match=r"'x' has shape \(3,\), the deviations have \(4,\)"):
        corrupt('table_noise', row[:3], 0.5, deviation=deviation)
    with pytest.raises(ValueError, match='deviation must be at least 0'):
        corrupt('table_noise', row, 0.5, deviation=-1.0)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'name': 'audio_dropout', 'segment': 0}, 'segment must be at least 1 sample, got 0'),
        ({'name': 'audio_masks', 'num_masks': 0}, 'num_masks must be at least 1, got 0'),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build({'key': 'x', **options}, transforms)
