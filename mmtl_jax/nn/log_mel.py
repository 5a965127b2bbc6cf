"""Log-mel spectrogram, the same function for numpy (data transforms) and jax.numpy (encoders with a front end)."""

import functools
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse

# The smallest power that is told from silence, librosa's default.
FLOOR = 1e-10
# Frames that numpy transforms at once.
BLOCK = 64


def hertz_to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Returns the mel scale of Slaney's Auditory Toolbox: linear up to 1 kHz, logarithmic above."""
    hertz = np.asarray(hertz, np.float64)
    above = 15.0 + 27.0 * np.log(np.maximum(hertz, 1.0) / 1000.0) / np.log(6.4)
    return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, above)


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """Returns the inverse of `hertz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))


@functools.lru_cache(maxsize=16)
def mel_filters(sample_rate: int, fft_size: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Returns triangular filters of equal area, `[fft_size // 2 + 1, num_mels]` float32 (librosa's default filters).

    Raises:
      ValueError: the band is empty or wider than half the sample rate.
    """
    if not 0.0 <= fmin < fmax <= sample_rate / 2:
        raise ValueError(
            f'log_mel: expected 0 <= fmin < fmax <= {sample_rate / 2:g} Hz (half the sample rate), '
            f'got fmin={fmin:g}, fmax={fmax:g}.'
        )
    edges = mel_to_hertz(np.linspace(hertz_to_mel(fmin), hertz_to_mel(fmax), num_mels + 2))
    bins = np.linspace(0.0, sample_rate / 2, fft_size // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * 2.0 / (edges[2:] - edges[:-2])).astype(np.float32)


@functools.lru_cache(maxsize=16)
def sparse_mel_filters(*bands: float) -> scipy.sparse.csc_array:
    """Returns `mel_filters`, of which at most two in a row are not zero, as a sparse matrix."""
    return scipy.sparse.csc_array(mel_filters(*bands))


@functools.lru_cache(maxsize=16)
def hann_window(window_size: int, fft_size: int) -> np.ndarray:
    """Returns a periodic Hann window of `window_size` samples, centred in `[fft_size]` zeros, float32."""
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window_size) / window_size)
    before = (fft_size - window_size) // 2
    return np.pad(window, (before, fft_size - window_size - before)).astype(np.float32)


def num_frames(num_samples: int, *, fft_size: int, hop_size: int) -> int:
    """Returns how many frames `log_mel` makes of `num_samples` samples: whole frames only, but at least one."""
    return 1 + max(0, num_samples - fft_size) // hop_size


def log_mel(
    waveform: Any,
    *,
    sample_rate: int = 16000,
    num_mels: int = 80,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    fft_size: int | None = None,
    fmin: float = 0.0,
    fmax: float | None = None,
    xp: ModuleType = np,
) -> Any:
    """Returns the logarithm of the mel power spectrogram, `[..., frames, num_mels]` float32.

    `log(max(1e-10, |rfft(window * frame)| ** 2 @ filters))`, with the periodic Hann window and the mel filters of
    Slaney, as `librosa.feature.melspectrogram(center=False)` computes them. Frames start every `hop_seconds` and are
    not centred; a waveform shorter than one frame is padded with zeros to one.

    Args:
      waveform: `[..., samples]`; integers are read as int16 PCM and divided by 32768, floats are taken as they are.
      sample_rate: samples per second.
      num_mels: number of mel bands.
      window_seconds: length of the Hann window.
      hop_seconds: distance of two frames.
      fft_size: frame length in samples; None takes the next power of two above the window.
      fmin: lower edge of the lowest band, Hz.
      fmax: upper edge of the highest band, Hz; None is half the sample rate.
      xp: numpy or jax.numpy.

    Raises:
      ValueError: the window is longer than the frame, the hop is empty, or the band is not inside the spectrum.
    """
    window_size, hop_size = round(window_seconds * sample_rate), round(hop_seconds * sample_rate)
    if window_size < 2 or hop_size < 1:
        raise ValueError(
            f'log_mel: the window and the hop must hold at least 2 and 1 samples, got {window_size} and {hop_size} '
            f'({window_seconds} s and {hop_seconds} s at {sample_rate} Hz).'
        )
    fft_size = fft_size or 2 ** int(np.ceil(np.log2(window_size)))
    if window_size > fft_size:
        raise ValueError(f'log_mel: the window of {window_size} samples does not fit into fft_size={fft_size}.')
    bands = (sample_rate, fft_size, num_mels, float(fmin), float(fmax or sample_rate / 2))
    waveform = pcm_to_float(waveform, xp)
    missing = fft_size - waveform.shape[-1]
    if missing > 0:
        waveform = xp.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])
    window = hann_window(window_size, fft_size).reshape((1,) * waveform.ndim + (-1,))
    if xp is np:
        mel = mel_in_blocks(waveform, window, hop_size, sparse_mel_filters(*bands))
    else:
        frames = num_frames(waveform.shape[-1], fft_size=fft_size, hop_size=hop_size)
        starts = np.arange(frames)[:, None] * hop_size + np.arange(fft_size)
        mel = _power(xp.fft.rfft(waveform[..., starts] * window, axis=-1)) @ mel_filters(*bands)
    return xp.log(xp.maximum(mel, np.float32(FLOOR)))


def _power(spectrum: Any) -> Any:
    """Returns the squared magnitude."""
    return spectrum.real**2 + spectrum.imag**2


def pcm_to_float(waveform: Any, xp: ModuleType = np) -> Any:
    """Returns float32 samples: integers are read as int16 PCM and divided by 32768, floats are taken as they are."""
    if xp.issubdtype(waveform.dtype, xp.integer):
        return waveform.astype(xp.float32) * np.float32(1 / 32768)
    return waveform.astype(xp.float32)


def mel_in_blocks(
    waveform: np.ndarray, window: np.ndarray, hop_size: int, filters: scipy.sparse.csc_array
) -> np.ndarray:
    """Returns the mel power spectrogram `[..., frames, num_mels]` of whole frames, four times as fast as in one piece.

    Small blocks stay in memory that is already mapped, and the sparse product does not wake the threads of BLAS, which
    fight with the training for the cores.
    """
    size = window.shape[-1]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, size, axis=-1)[..., ::hop_size, :]
    mel = np.empty((*frames.shape[:-1], filters.shape[1]), np.float32)
    for start in range(0, frames.shape[-2], BLOCK):
        power = _power(np.fft.rfft(frames[..., start : start + BLOCK, :] * window, axis=-1))
        block = power.reshape(-1, power.shape[-1]) @ filters
        mel[..., start : start + BLOCK, :] = block.reshape(*power.shape[:-1], -1)
    return mel
