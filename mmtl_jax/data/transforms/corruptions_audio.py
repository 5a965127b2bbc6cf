"""Corruptions of sound: waveforms `[samples]`, and log-mel frames `[frames, num_mels]`."""

from typing import Any

import numpy as np

from mmtl_jax.data.transforms.base import Transform
from mmtl_jax.data.transforms.corruptions import Corrupt, corruption


def audio_snr(key: str, level: float = 0.5, *, best: float = 40.0, worst: float = -10.0) -> Transform:
    """Adds white noise at a signal-to-noise ratio that falls with the level; at level 0 there is no noise.

        SNR = 10 log10(power of the signal / power of the noise) = best + level (worst - best)    in decibels

    Args:
      key: a waveform; one of integers stays one, cut to its range.
      level: 0 to 1.
      best: the ratio that level 0 would have, and every level above it stays below.
      worst: the ratio of level 1.
    """

    def function(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = rng.standard_normal(len(waveform), np.float32)
        signal = waveform.astype(np.float32)
        ratio = 10 ** ((best + level * (worst - best)) / 10)
        scale = np.sqrt(np.mean(np.square(signal, dtype=np.float64)) / ratio)
        return _like(waveform, signal + np.float32(scale) * noise)

    return _of_waveform('audio_snr', function, key, level)


def audio_dropout(key: str, level: float = 0.5, *, segment: int = 400) -> Transform:
    """Sets each segment of the waveform to zero with probability `level`; at 1 nothing is to be heard.

    Args:
      key: a waveform.
      level: 0 to 1.
      segment: samples that are lost together, 25 ms at 16 kHz; 1 for single samples.

    Raises:
      ValueError: a segment has no sample.
    """
    if segment < 1:
        raise ValueError(f'audio_dropout: segment must be at least 1 sample, got {segment}.')

    def function(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        lost = rng.random(-(-len(waveform) // segment)) < level
        return np.where(np.repeat(lost, segment)[: len(waveform)], waveform.dtype.type(0), waveform)

    return _of_waveform('audio_dropout', function, key, level)


def audio_masks(key: str, level: float = 0.5, *, num_masks: int = 2) -> Transform:
    """Masks stretches of time and bands of frequency with the mean of the frames, as SpecAugment, 1904.08779.

    The masks of each kind are `level / num_masks` of the frames long, or of the bands wide, at places of their own,
    where they may overlap. `spec_augment` is the augmentation.

    Args:
      key: frames `[T, F]`.
      level: 0 to 1.
      num_masks: of time and of frequency, m_T and m_F of the paper.

    Raises:
      ValueError: there is no mask.
    """
    if num_masks < 1:
        raise ValueError(f'audio_masks: num_masks must be at least 1, got {num_masks}.')

    def function(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        masked = frames.copy()
        mean = frames.mean(dtype=np.float32)
        for axis, places in enumerate(rng.random((2, num_masks))):
            size = frames.shape[axis]
            width = round(size * level / num_masks)
            for place in places:
                start = int(place * (size - width + 1))
                masked[(slice(None),) * axis + (slice(start, start + width),)] = mean
        return masked

    return corruption(
        'audio_masks', function, key, level, fits=lambda v: _is_sound(v, 2), expected='frames [T, F] of numbers'
    )


def _of_waveform(name: str, function: Corrupt, key: str, level: float) -> Transform:
    return corruption(
        name, function, key, level, fits=lambda value: _is_sound(value, 1), expected='a waveform [samples] of numbers'
    )


def _is_sound(value: Any, ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == ndim and value.dtype.kind in 'if'


def _like(waveform: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Returns a changed waveform in the type of the old one."""
    if waveform.dtype.kind == 'i':
        limits = np.iinfo(waveform.dtype)
        changed = np.clip(np.rint(changed), limits.min, limits.max)
    return changed.astype(waveform.dtype)
