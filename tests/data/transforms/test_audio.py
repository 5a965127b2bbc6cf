"""Transforms of sound."""

import librosa
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


def test_resampling_keeps_a_tone_and_removes_what_the_new_rate_cannot_carry():
    def tone(hertz, rate):
        return np.sin(2 * np.pi * hertz * np.arange(rate) / rate)

    result = run({'name': 'resample', 'source_rate': 48000, 'target_rate': 16000}, tone(440, 48000))
    assert (result.shape, result.dtype) == ((16000,), np.float32)
    # The default filter lets 0.1 % of deviation through; at both ends it sees silence.
    np.testing.assert_allclose(result[200:-200], tone(440, 16000)[200:-200], atol=2e-3)
    result = run({'name': 'resample', 'source_rate': 44100, 'target_rate': 16000}, tone(11000, 44100))
    # It would be heard at 5000 Hz.
    assert np.abs(result[200:-200]).max() < 2e-3
    pcm = (tone(440, 8000) * 32767).astype(np.int16)
    result = run({'name': 'resample', 'source_rate': 8000, 'target_rate': 11025}, pcm[:7999])
    assert len(result) == -(-7999 * 11025 // 8000)
    np.testing.assert_allclose(result[200:10000], tone(440, 11025)[200:10000], atol=2e-3)
    np.testing.assert_array_equal(
        run({'name': 'resample', 'source_rate': 8000, 'target_rate': 8000}, pcm), pcm.astype(np.float32) / 32768
    )


@pytest.mark.parametrize('rate', [0, 16000.0])
def test_a_rate_that_is_none_is_told(rate):
    with pytest.raises(ValueError, match='resample takes rates in whole samples per second, got 8000 and'):
        build({'name': 'resample', 'key': 'mel', 'source_rate': 8000, 'target_rate': rate}, transforms)


def test_waveforms_have_mean_0_and_variance_1():
    pcm = (np.random.default_rng(0).normal(size=9000) * 300 + 50).astype(np.int16)
    result = run({'name': 'to_waveform'}, pcm)
    assert result.dtype == np.float32
    np.testing.assert_allclose([result.mean(), result.std()], [0, 1], atol=1e-3)
    np.testing.assert_array_equal(run({'name': 'to_waveform', 'normalise': False}, pcm), pcm / np.float32(32768))
    assert not run({'name': 'to_waveform'}, np.zeros(10, np.int16)).any()


@pytest.mark.parametrize('num_mels', [80, 128])
def test_whisper_frames_are_those_that_librosa_leads_to(num_mels):
    time = np.arange(20000) / 16000
    wave = (0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * time)).astype(np.float32)
    wave += np.random.default_rng(0).normal(size=wave.shape, scale=1e-3).astype(np.float32)
    filled = np.pad(wave, (0, 32000 - len(wave)))
    mel = librosa.feature.melspectrogram(
        y=filled.astype(np.float64), sr=16000, n_fft=400, hop_length=160, n_mels=num_mels, pad_mode='reflect'
    )
    expected = np.log10(np.maximum(mel[:, :-1], 1e-10)).T
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    spec = {'name': 'whisper_log_mel', 'num_mels': num_mels}
    # A power 80 dB below the loudest keeps four digits in float32, and the logarithm makes them absolute.
    np.testing.assert_allclose(run({**spec, 'seconds': 2}, wave), expected, atol=5e-5)
    short = run({**spec, 'seconds': None}, wave)
    np.testing.assert_allclose(short, expected[:125], atol=5e-5)
    assert run(spec, wave).shape == (3000, num_mels)
    np.testing.assert_array_equal(run({**spec, 'seconds': 0.5}, wave), run({**spec, 'seconds': 0.5}, wave[:8000]))
    assert run({**spec, 'seconds': None, 'dtype': 'float16'}, wave[:161]).dtype == np.float16
    assert len(run({**spec, 'seconds': None}, wave[:161])) == 2
    with pytest.raises(ValueError, match=r'0\.01 seconds hold no frame; Whisper takes 30'):
        build({**spec, 'key': 'mel', 'seconds': 0.01}, transforms)
