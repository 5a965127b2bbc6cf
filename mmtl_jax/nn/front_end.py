"""From waveforms to log-mel frames inside a model."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.nn.log_mel import log_mel
from mmtl_jax.nn.masking import fill_masked
from mmtl_jax.nn.pooling import masked_mean


class LogMel(nn.Module):
    """Turns waveforms into log-mel frames, each band standardised over the real frames of its clip.

    A clip's frames are those that `log_mel` makes of its real samples alone, however far the batch is padded; a clip
    shorter than one frame gets one, an empty clip none.

    Attributes:
      sample_rate: samples per second.
      num_mels: number of mel bands.
      window_seconds: length of the Hann window.
      hop_seconds: distance of two frames.
      fft_size: samples of a frame; by default the next power of two above the window.
      least_deviation: lower bound of the divisor, for bands that are nearly constant.
    """

    sample_rate: int = 16000
    num_mels: int = 80
    window_seconds: float = 0.025
    hop_seconds: float = 0.010
    fft_size: int | None = None
    least_deviation: float = 0.1

    def __call__(self, waveform: Ragged) -> Ragged:
        """Returns Ragged frames `[B, T, num_mels]` of a Ragged waveform `[B, L]`, real samples first."""
        fft_size = self.fft_size or 2 ** int(np.ceil(np.log2(round(self.window_seconds * self.sample_rate))))
        frames = log_mel(
            fill_masked(waveform.values, waveform.mask),
            sample_rate=self.sample_rate,
            num_mels=self.num_mels,
            window_seconds=self.window_seconds,
            hop_seconds=self.hop_seconds,
            fft_size=fft_size,
            xp=jnp,
        )
        samples = jnp.sum(waveform.mask, axis=1)
        hops = jnp.maximum(samples - fft_size, 0) // round(self.hop_seconds * self.sample_rate)
        count = jnp.where(samples > 0, 1 + hops, 0)
        mask = jnp.arange(frames.shape[1])[None] < count[:, None]
        return Ragged(values=standardise_over_time(frames, mask, self.least_deviation), mask=mask)


def standardise_over_time(frames: Array, mask: Array, least_deviation: float) -> Array:
    """Returns `frames` `[B, T, D]` with mean 0 and standard deviation 1 per row and channel, zero where masked."""
    centred = frames - masked_mean(frames, mask)[:, None]
    variance = jnp.maximum(masked_mean(centred**2, mask), least_deviation**2)[:, None]
    return fill_masked(centred / jnp.sqrt(variance), mask)
