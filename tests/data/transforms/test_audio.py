"""Transforms of sound."""

import numpy as np
import pytest

from mmtl_jax.core.build import build
from mmtl_jax.data import transforms
from mmtl_jax.data.transforms.base import is_random
from mmtl_jax.nn.log_mel import log_mel


def frames(length=30, bands=8, seed=0):
    return np.random.default_rng(seed).normal(size=(length, bands)).astype(np.float16)


def run(spec, value, seed=0):
    step = build({'key': 'mel', **spec}, transforms)
    example = {'mel': value}
    return (step(example, np.random.default_rng(seed)) if is_random(step) else step(example))['mel']


def test_log_mel_is_the_shared_function_in_half_precision():
    wave = (np.random.default_rng(0).normal(size=2000) * 3000).astype(np.int16)
    result = run({'name': 'log_mel', 'sample_rate': 8000, 'num_mels': 20}, wave)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, log_mel(wave, sample_rate=8000, num_mels=20).astype(np.float16))


def test_normalised_frames_have_mean_0_and_deviation_1_but_for_silent_bands():
    values = frames(200).astype(np.float32) * 3 + 7
    values[:, 0] = 2.0 + 0.001 * values[:, 1]
    result = run({'name': 'normalise_frames'}, values)
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(result[:, 1:].std(axis=0), 1, atol=1e-4)
    assert np.abs(result[:, 0]).max() < 0.2
    assert np.isfinite(run({'name': 'normalise_frames'}, frames(1))).all()


def test_frames_can_be_normalised_by_the_numbers_of_the_data_set():
    value = np.array([[1.0, 5.0]], np.float16)
    result = run({'name': 'normalise_frames', 'mean': 3.0, 'deviation': 2.0}, value)
    np.testing.assert_array_equal(result, np.array([[-1.0, 1.0]], np.float16))
    for wrong in ({'mean': 1.0}, {'deviation': 1.0}, {'mean': 0.0, 'deviation': 0.0}):
        with pytest.raises(ValueError, match='normalise_frames takes mean and a deviation above 0, or neither'):
            build({'name': 'normalise_frames', 'key': 'mel', **wrong}, transforms)


def test_spec_augment_masks_bands_and_stretches_within_their_limits():
    value = frames(40, 12)
    mean = value.mean(dtype=np.float32).astype(np.float16)
    spec = {'name': 'spec_augment', 'frequency_width': 3, 'time_width': 20, 'max_time_share': 0.1}
    masked_bands, masked_frames = [], []
    for seed in range(50):
        masked = run(spec, value, seed) == mean
        masked_bands.append(masked.all(axis=0).sum())
        masked_frames.append(masked.all(axis=1).sum())
        inside = ~(masked.all(axis=0)[None] | masked.all(axis=1)[:, None])
        np.testing.assert_array_equal(run(spec, value, seed)[inside], value[inside])
    assert 0 < max(masked_bands) <= 6
    # Two masks of at most a tenth of 40 frames.
    assert 0 < max(masked_frames) <= 8


def test_time_stretch_interpolates_and_keeps_its_limits():
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    lengths = set()
    for seed in range(40):
        result = run({'name': 'time_stretch', 'low': 0.8, 'high': 1.25}, ramp, seed)
        np.testing.assert_allclose(result[:, 0], np.linspace(0, 1, len(result)), atol=1e-6)
        lengths.add(len(result))
    assert 16 <= min(lengths) < max(lengths) <= 25
    limited = {len(run({'name': 'time_stretch', 'max_length': 20}, ramp, seed)) for seed in range(20)}
    assert max(limited) == 20
    assert build({'name': 'time_stretch', 'key': 'mel', 'high': 1.25}, transforms).growth == 1.25


def test_frequency_shift_repeats_the_edge():
    value = frames(4, 10)
    shifts = set()
    for seed in range(30):
        result = run({'name': 'frequency_shift', 'max_bins': 2}, value, seed)
        expected = {s: value[:, np.clip(np.arange(10) - s, 0, 9)] for s in range(-2, 3)}
        shifts |= {shift for shift, array in expected.items() if np.array_equal(array, result)}
    assert shifts == {-2, -1, 0, 1, 2}


def test_missing_stays_missing_and_arguments_are_left_alone():
    value = frames()
    kept = value.copy()
    for name in ('normalise_frames', 'spec_augment', 'time_stretch', 'frequency_shift'):
        assert run({'name': name}, None) is None
        assert run({'name': name}, np.zeros((0, 8), np.float16)) is None
        run({'name': name}, value)
        np.testing.assert_array_equal(value, kept)


def test_bad_numbers():
    with pytest.raises(ValueError, match=r'expected 0 < low <= high, got low=1.2, high=1.1'):
        build({'name': 'time_stretch', 'key': 'mel', 'low': 1.2}, transforms)
    with pytest.raises(ValueError, match='fmin < fmax <= 4000 Hz'):
        build({'name': 'log_mel', 'key': 'mel', 'sample_rate': 8000, 'fmax': 5000.0}, transforms)
