"""Transforms of sound: waveforms `[samples]` and log-mel frames `[frames, num_mels]`."""

import numpy as np

from mmtl_jax.data.transforms.base import Transform, on_key
from mmtl_jax.nn.log_mel import log_mel as log_mel_frames


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
