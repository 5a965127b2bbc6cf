"""Transforms of sound: waveforms `[samples]` and log-mel frames `[frames, num_mels]`."""

import math

import numpy as np
import scipy.signal

from mmtl_jax.data.transforms.base import Transform, on_key
from mmtl_jax.nn.log_mel import FLOOR, hann_window, mel_in_blocks, pcm_to_float, sparse_mel_filters
from mmtl_jax.nn.log_mel import log_mel as log_mel_frames

# Whisper's spectrogram: sampling rate, frame and hop in samples, highest band in Hz.
WHISPER_RATE, WHISPER_WINDOW, WHISPER_HOP, WHISPER_FMAX = 16000, 400, 160, 8000.0


def log_mel(
    key: str,
    out: str | None = None,
    *,
    sample_rate: int = 16000,
    num_mels: int = 80,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    fft_size: int | None = None,
    fmin: float = 0.0,
    fmax: float | None = None,
    dtype: str = 'float16',
) -> Transform:
    """Turns a waveform into log-mel frames, see `mmtl_jax.nn.log_mel`; float16 halves the memory of the cache."""
    options = {
        'sample_rate': sample_rate,
        'num_mels': num_mels,
        'window_seconds': window_seconds,
        'hop_seconds': hop_seconds,
        'fft_size': fft_size,
        'fmin': fmin,
        'fmax': fmax,
    }
    # Raises here, not at the first example, if the numbers do not fit together.
    log_mel_frames(np.zeros(1, np.float32), **options)

    def function(waveform: np.ndarray) -> np.ndarray:
        return log_mel_frames(waveform, **options).astype(dtype)

    return on_key('log_mel', function, key, out)


def resample(key: str, out: str | None = None, *, source_rate: int, target_rate: int) -> Transform:
    """Changes the sampling rate of a waveform; what the new rate cannot carry is filtered out.

    `scipy.signal.resample_poly`, a polyphase filter with a Kaiser window, without delay. L samples become
    `ceil(L * target_rate / source_rate)`, float32; integers are read as int16 PCM and divided by 32768.

    Args:
      key: samples `[L]`.
      out: where they go, `key` by default.
      source_rate: samples per second of what comes in.
      target_rate: samples per second of what goes out.

    Raises:
      ValueError: a rate is not a positive whole number.
    """
    if not all(isinstance(rate, int) and rate > 0 for rate in (source_rate, target_rate)):
        raise ValueError(f'resample takes rates in whole samples per second, got {source_rate!r} and {target_rate!r}.')
    shared = math.gcd(source_rate, target_rate)

    def function(waveform: np.ndarray) -> np.ndarray:
        samples = pcm_to_float(waveform)
        if source_rate == target_rate:
            return samples
        return scipy.signal.resample_poly(samples, target_rate // shared, source_rate // shared).astype(np.float32)

    return on_key('resample', function, key, out)


def to_waveform(key: str, out: str | None = None, *, normalise: bool = True) -> Transform:
    """Turns samples into what wav2vec 2.0 (2006.11477, section 4.1) takes: float32 of mean 0 and variance 1.

    `(x - mean(x)) / sqrt(var(x) + 1e-7)`, as its weights' `do_normalize` asks for.

    Args:
      key: samples `[L]`; integers are read as int16 PCM and divided by 32768.
      out: where they go, `key` by default.
      normalise: False for weights that were trained on the samples as they are.
    """

    def function(waveform: np.ndarray) -> np.ndarray:
        samples = pcm_to_float(waveform)
        return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7) if normalise else samples

    return on_key('to_waveform', function, key, out)


def whisper_log_mel(
    key: str, out: str | None = None, *, num_mels: int = 80, seconds: float | None = 30.0, dtype: str = 'float32'
) -> Transform:
    """Turns a waveform at 16 kHz into the frames that Whisper (Radford et al. 2022, 2212.04356, section 2.2) takes.

    `max(log10(max(mel, 1e-10)), top - 8) / 4 + 1`, with the mel power spectrogram of 400 samples every 160, centred,
    and `top` the highest value of the clip. 100 frames a second.

    Args:
      key: samples `[L]`; integers are read as int16 PCM and divided by 32768.
      out: where the frames `[T, num_mels]` go, `key` by default.
      num_mels: 80, and 128 for large-v3.
      seconds: what the clip is filled up to with silence, or cut to: Whisper was trained on 30. None keeps its length:
        the first `ceil(L / 160)` of these frames, an encoder's input that is far shorter and no longer the original's.
      dtype: of the frames; float16 halves the memory of the cache, and keeps three digits.

    Raises:
      ValueError: `seconds` holds no frame.
    """
    filters = sparse_mel_filters(WHISPER_RATE, WHISPER_WINDOW, num_mels, 0.0, WHISPER_FMAX)
    window = hann_window(WHISPER_WINDOW, WHISPER_WINDOW)[None]
    whole = None if seconds is None else round(seconds * WHISPER_RATE)
    if whole is not None and whole < WHISPER_WINDOW:
        raise ValueError(f'whisper_log_mel: {seconds} seconds hold no frame; Whisper takes 30.')

    def function(waveform: np.ndarray) -> np.ndarray:
        samples = pcm_to_float(waveform)[:whole]
        frames = -(-len(samples) // WHISPER_HOP) if whole is None else whole // WHISPER_HOP
        # Without `seconds`, silence as far as the sound reaches into frames, so that the loudest is the same.
        length = frames * WHISPER_HOP + WHISPER_WINDOW if whole is None else whole
        samples = np.pad(samples, (0, length - len(samples)))
        samples = np.pad(samples, WHISPER_WINDOW // 2, mode='reflect')
        mel = mel_in_blocks(samples, window, WHISPER_HOP, filters)[: length // WHISPER_HOP]
        values = np.log10(np.maximum(mel, np.float32(FLOOR)))
        values = np.maximum(values, values.max() - 8) / 4 + 1
        return values[:frames].astype(dtype)

    return on_key('whisper_log_mel', function, key, out)


def normalise_frames(
    key: str, *, mean: float | None = None, deviation: float | None = None, least_deviation: float = 0.1
) -> Transform:
    """Shifts and scales frames: by the numbers given, or every mel band of one utterance to mean 0 and deviation 1.

    A clip of half a second is too short for statistics of its own: they then depend on which sounds it holds.

    Args:
      key: frames `[T, F]`; the type stays, the sums are float32.
      mean: of all frames of the data set.
      deviation: the standard deviation of all frames; given with `mean`, or both left out.
      least_deviation: a band that hardly changes, such as one above the recording's bandwidth, is divided by this
        instead, so that its noise is not blown up.

    Raises:
      ValueError: only one of `mean` and `deviation` is given, or the deviation is not positive.
    """
    if (mean is None) != (deviation is None) or (deviation is not None and deviation <= 0):
        raise ValueError(f'normalise_frames takes mean and a deviation above 0, or neither: got {mean}, {deviation}.')

    def function(frames: np.ndarray) -> np.ndarray:
        values = frames.astype(np.float32)
        if mean is not None:
            return ((values - mean) / deviation).astype(frames.dtype)
        values -= values.mean(axis=0)
        values /= np.maximum(values.std(axis=0), least_deviation)
        return values.astype(frames.dtype)

    return on_key('normalise_frames', function, key)


def spec_augment(
    key: str,
    *,
    num_frequency_masks: int = 2,
    frequency_width: int = 15,
    num_time_masks: int = 2,
    time_width: int = 25,
    max_time_share: float = 0.2,
) -> Transform:
    """Masks bands and stretches of time with the mean of the frames; Park et al., arXiv 1904.08779, without warping.

    Args:
      key: frames `[T, F]`.
      num_frequency_masks: m_F of the paper.
      frequency_width: F, the widest band mask.
      num_time_masks: m_T.
      time_width: T, the longest time mask, in frames.
      max_time_share: p, no time mask is longer than this share of the frames.
    """

    def function(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        frames = frames.copy()
        length, bands = frames.shape
        mean = frames.mean(dtype=np.float32)
        for _ in range(num_frequency_masks):
            width = int(rng.integers(0, min(frequency_width, bands) + 1))
            start = int(rng.integers(0, bands - width + 1))
            frames[:, start : start + width] = mean
        longest = min(time_width, int(length * max_time_share))
        for _ in range(num_time_masks):
            width = int(rng.integers(0, longest + 1))
            start = int(rng.integers(0, length - width + 1))
            frames[start : start + width] = mean
        return frames

    return on_key('spec_augment', function, key, random=True)


def time_stretch(key: str, *, low: float = 0.9, high: float = 1.1, max_length: int | None = None) -> Transform:
    """Makes the frames between `low` and `high` times as many, by linear interpolation between neighbours.

    Args:
      key: frames `[T, F]`.
      low: the strongest shortening.
      high: the strongest lengthening; the length buckets allow for it.
      max_length: never lengthens beyond this; give the last bucket's length so that nothing is cut off there.
    """
    if not 0.0 < low <= high:
        raise ValueError(f'time_stretch: expected 0 < low <= high, got low={low}, high={high}.')

    def function(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        old = len(frames)
        new = max(1, int(old * rng.uniform(low, high)))
        if max_length is not None:
            new = min(new, max(old, max_length))
        if new == old:
            return frames
        places = np.arange(new, dtype=np.float32) * np.float32((old - 1) / max(1, new - 1))
        before = places.astype(np.int32)
        share = (places - before)[:, None]
        values = frames.astype(np.float32)
        result = values[before]
        result += share * (values[np.minimum(before + 1, old - 1)] - result)
        return result

    return on_key('time_stretch', function, key, random=True, growth=max(1.0, high))


def frequency_shift(key: str, *, max_bins: int = 3) -> Transform:
    """Shifts the frames by up to `max_bins` mel bands up or down, repeating the band at the edge."""

    def function(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shift = int(rng.integers(-max_bins, max_bins + 1))
        if not shift:
            return frames
        shifted = np.empty_like(frames)
        if shift > 0:
            shifted[:, shift:], shifted[:, :shift] = frames[:, :-shift], frames[:, :1]
        else:
            shifted[:, :shift], shifted[:, shift:] = frames[:, -shift:], frames[:, -1:]
        return shifted

    return on_key('frequency_shift', function, key, random=True)
