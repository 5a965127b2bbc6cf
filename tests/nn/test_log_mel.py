"""Log-mel against librosa, and the numpy version against the jax.numpy version."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from mmtl_jax.nn.log_mel import log_mel, mel_filters, num_frames


def waveform(samples: int, seed: int = 0) -> np.ndarray:
    time = np.arange(samples) / 16000
    noise = np.random.default_rng(seed).normal(scale=0.01, size=samples)
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time**2) + noise).astype(np.float32)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'num_mels': 40, 'fmin': 60.0, 'fmax': 7000.0},
        {'sample_rate': 8000, 'num_mels': 32, 'window_seconds': 0.032, 'hop_seconds': 0.016, 'fft_size': 512},
    ],
)
def test_agrees_with_librosa(options):
    sample_rate = options.get('sample_rate', 16000)
    window = round(options.get('window_seconds', 0.025) * sample_rate)
    expected = librosa.feature.melspectrogram(
        y=waveform(9000),
        sr=sample_rate,
        n_fft=512 if sample_rate == 16000 else options['fft_size'],
        win_length=window,
        hop_length=round(options.get('hop_seconds', 0.010) * sample_rate),
        center=False,
        n_mels=options.get('num_mels', 80),
        fmin=options.get('fmin', 0.0),
        fmax=options.get('fmax'),
    )
    # float32 sums in another order; the logarithm makes the relative error of the power an absolute one.
    np.testing.assert_allclose(log_mel(waveform(9000), **options), np.log(np.maximum(expected, 1e-10)).T, atol=2e-3)


def test_filters_are_those_of_librosa():
    expected = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=64, fmin=20.0, fmax=9000.0).T
    np.testing.assert_allclose(mel_filters(22050, 1024, 64, 20.0, 9000.0), expected, atol=1e-7)


def test_numpy_and_jax_agree_also_for_batches():
    # More frames than one block of the numpy version.
    batch = np.stack([waveform(16000, seed) for seed in range(2)])
    ours = log_mel(batch)
    theirs = jax.jit(lambda x: log_mel(x, xp=jnp))(batch)
    assert ours.shape == (2, 97, 80)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    np.testing.assert_allclose(ours[1], log_mel(batch[1]), atol=1e-5)


def test_integers_are_pcm_and_short_waveforms_give_one_frame():
    pcm = (waveform(600) * 32768).astype(np.int16)
    np.testing.assert_allclose(log_mel(pcm), log_mel(pcm.astype(np.float32) / 32768), atol=1e-6)
    for samples, frames in ((1, 1), (512, 1), (671, 1), (672, 2), (96000, 597)):
        assert log_mel(np.zeros(samples, np.float32)).shape == (frames, 80)
        assert num_frames(samples, fft_size=512, hop_size=160) == frames


def test_silence_is_finite():
    assert np.allclose(log_mel(np.zeros(1000, np.int16)), np.log(1e-10))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'fmax': 9000.0}, r'expected 0 <= fmin < fmax <= 8000 Hz .* got fmin=0, fmax=9000'),
        ({'window_seconds': 0.0}, 'must hold at least 2 and 1 samples, got 0 and 160'),
        ({'fft_size': 256}, 'the window of 400 samples does not fit into fft_size=256'),
    ],
)
def test_says_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        log_mel(np.zeros(1000, np.float32), **options)
