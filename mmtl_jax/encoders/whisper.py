"""The encoder of Radford et al. 2022 (Whisper), for pretrained weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.encoders.transformer_layer import ACTIVATIONS, layer_norm, run_layers
from mmtl_jax.nn import CheckedModule, conv_kernel, fill_masked

LONGEST_WAVE = 10_000.0


class Whisper(CheckedModule):
    """Convolutions and a pre-norm transformer over log-mel frames, a token per two (Radford et al. 2022, 2212.04356).

    The defaults are those of Whisper tiny. The original knows no mask: it takes 3000 frames, 30 s, and attends to the
    silence that fills them. Such frames, all marked as real, give its tokens (the transform `whisper_log_mel` makes
    them). With fewer frames, or masked ones, a clip ends where its frames end: nothing attends beyond, positions are
    those of its beginning, and the tokens are the same however far the batch is padded. That costs a fraction of the
    time for short clips, and it is no longer what the weights were trained on.

    Positions are stored with the weights and do not learn, as in the original.

    The hidden states, the input of the layers first and then what each adds up to, zero where masked, are a tuple of
    `depth + 1` arrays `[B, N, width]`:
    `encoder.apply(variables, frames, train=False, mutable='intermediates')[1]['intermediates']['hidden_states']`.

    Attributes:
      width: feature size D.
      depth: number of layers.
      num_heads: attention heads per layer; a head has `width / num_heads` channels, rounded up.
      mlp_width: hidden size of the feed-forward layers; `4 * width` by default.
      max_length: number of positions, the most tokens.
      num_mels: bands of a frame; None takes what comes in first.
      epsilon: what LayerNorm adds to the variance.
      activation: of the feed-forward layers, see `BERT`; the convolutions have 'gelu'.
      dropout_rate: dropout on the input of the layers, the attention weights and both branches of a layer.
      dtype: of the arithmetic, such as `jnp.bfloat16`; parameters and features stay float32.
    """

    width: int
    depth: int = 4
    num_heads: int = 6
    mlp_width: int | None = None
    max_length: int = 1500
    num_mels: int | None = None
    epsilon: float = 1e-5
    activation: str = 'gelu'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, frames: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per two frames.

        Args:
          frames: log-mel frames `[B, T, num_mels]`, the real ones first.
          train: whether dropout acts.

        Raises:
          ValueError: frames of another shape, or more than there are positions for.
        """
        self._check(frames)
        mask = frames.mask
        x = ACTIVATIONS['gelu'](self._convolution(1, 'conv_1')(fill_masked(frames.values, mask)))
        x = ACTIVATIONS['gelu'](self._convolution(2, 'conv_2')(fill_masked(x, mask)))
        # A token stands on every other frame.
        mask = mask[:, ::2]
        positions = self.param('fixed_position_embedding', sinusoids, (self.max_length, self.width))
        x = x + jax.lax.stop_gradient(positions[None, : x.shape[1]]).astype(x.dtype)
        x = run_layers(self, fill_masked(x, mask), mask, train=train, norm_first=True, key_bias=False)
        x = layer_norm(self.epsilon, self.dtype, 'norm')(x)
        return Features(tokens=fill_masked(x.astype(jnp.float32), mask), mask=mask)

    def _convolution(self, stride: int, name: str) -> nn.Conv:
        """Returns the convolution of three frames, the middle one of each a multiple of `stride`."""
        return nn.Conv(self.width, (3,), (stride,), padding=1, kernel_init=conv_kernel, dtype=self.dtype, name=name)

    def _check(self, frames: Ragged) -> None:
        shape = frames.values.shape
        if len(shape) != 3 or self.num_mels not in (None, shape[-1]):
            raise ValueError(
                f'frames must be [B, T, {self.num_mels or "mels"}], got {shape}; the transform whisper_log_mel makes '
                f'them of a waveform.'
            )
        if shape[1] > 2 * self.max_length:
            raise ValueError(
                f'{shape[1]} frames are more than the {2 * self.max_length} that this Whisper has positions for; cut '
                f'the speech into pieces.'
            )


def sinusoids(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Returns sines and then cosines of the position at falling frequencies, `[length, width]`; `key` is not used."""
    length, width = shape
    waves = -(-width // 2)
    frequencies = np.exp(-np.log(LONGEST_WAVE) / max(waves - 1, 1) * np.arange(waves))
    phases = np.outer(np.arange(length), frequencies)
    return jnp.asarray(np.concatenate([np.sin(phases), np.cos(phases)], axis=1)[:, :width], dtype)
