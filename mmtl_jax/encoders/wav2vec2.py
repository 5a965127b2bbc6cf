"""The speech encoder of Baevski et al. 2020 (wav2vec 2.0), for pretrained weights."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.encoders.transformer_layer import ACTIVATIONS, layer_norm, run_layers
from mmtl_jax.nn import CheckedModule, conv_kernel, fill_masked, masked_mean

CONV_NORMS = ('group', 'layer')
# What the norms between the convolutions add to the variance; no configuration tells another.
CONV_EPSILON = 1e-5
GELU = ACTIVATIONS['gelu']


class Wav2Vec2(CheckedModule):
    """Convolutions over a waveform at 16 kHz, then a transformer: 49 tokens a second (Baevski et al. 2020, 2006.11477).

    The defaults are those of wav2vec 2.0 base. The published forms differ in their norms:

    - base, and the large model of LibriSpeech alone: `conv_norm='group'`, one norm over time after the first
      convolution, and post-norm layers;
    - large of Libri-Light, XLSR and XLS-R: `conv_norm='layer'`, a norm of each frame after every convolution, with
      `conv_bias=True`, and pre-norm layers, `norm_first=True`.

    The tokens of a clip are those that the original makes of it alone, however far the batch is padded. For the second
    form these are also the original's with its attention mask. For the first the original recommends zeros and no mask,
    lets the statistics of its norm and its attention run over the padding, and gives other tokens in other company; to
    repeat that, fill the padding with zeros and mark it as real.

    Sown as `intermediates`, zero where masked: `conv_features` `[B, N, conv_widths[-1]]`, the normalised output of the
    convolutions, and `hidden_states`, a tuple of `depth + 1` arrays `[B, N, width]`, the input of the layers first and
    then what each adds up to, with `norm_first` before the last norm.

    Attributes:
      width: feature size D.
      depth: number of layers.
      num_heads: attention heads per layer; a head has `width / num_heads` channels, rounded up.
      mlp_width: hidden size of the feed-forward layers; `4 * width` by default.
      conv_widths: channels of each convolution.
      conv_kernels: samples or frames that each convolution sees.
      conv_strides: their distance.
      conv_norm: 'group', each channel over the real time, after the first convolution; 'layer', each frame, after all.
      conv_bias: whether the convolutions have biases.
      position_kernel: tokens that the convolution for positions sees.
      position_groups: groups of channels in it; where they do not divide `width`, the most that do divide both.
      norm_first: LayerNorm on the input of both branches of a layer and at the end, or on the sums.
      epsilon: what LayerNorm adds to the variance.
      activation: of the feed-forward layers, see `BERT`; the convolutions have 'gelu'.
      dropout_rate: dropout on the input of the layers, the attention weights and both branches of a layer.
      dtype: of the arithmetic, such as `jnp.bfloat16`; parameters and features stay float32.
    """

    width: int
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None
    conv_widths: Sequence[int] = (512,) * 7
    conv_kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2)
    conv_norm: str = 'group'
    conv_bias: bool = False
    position_kernel: int = 128
    position_groups: int = 16
    norm_first: bool = False
    epsilon: float = 1e-5
    activation: str = 'gelu'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @property
    def receptive_field(self) -> int:
        """Samples that one token sees before the transformer, 400 by default.

        Raises:
          ValueError: the convolutions are not told completely.
        """
        if len({len(self.conv_widths), len(self.conv_kernels), len(self.conv_strides)}) != 1:
            raise ValueError(
                f'conv_widths, conv_kernels and conv_strides must be of one length, got {len(self.conv_widths)}, '
                f'{len(self.conv_kernels)} and {len(self.conv_strides)}.'
            )
        samples = 1
        for kernel, stride in zip(reversed(self.conv_kernels), reversed(self.conv_strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    @nn.compact
    def __call__(self, waveform: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per 320 samples, none for a clip of less than 400 (by default).

        Args:
          waveform: samples `[B, L]` as floats at the sampling rate of the weights, the real ones first.
          train: whether dropout acts.

        Raises:
          ValueError: no floats `[B, L]`, too few samples for a token, or an unknown norm.
        """
        self._check(waveform)
        x, mask = self._convolve(waveform)
        x = layer_norm(self.epsilon, self.dtype, 'conv_features_norm')(x)
        self.sow('intermediates', 'conv_features', fill_masked(x, mask))
        x = fill_masked(nn.Dense(self.width, dtype=self.dtype, name='projection')(x), mask)
        x = x + PositionalConv(self.position_kernel, self.position_groups, name='position_conv')(x)
        norm = layer_norm(self.epsilon, self.dtype, 'norm')
        x = x if self.norm_first else norm(x)
        x = run_layers(self, x, mask, train=train, norm_first=self.norm_first)
        x = norm(x) if self.norm_first else x
        return Features(tokens=fill_masked(x.astype(jnp.float32), mask), mask=mask)

    def _check(self, waveform: Ragged) -> None:
        values = waveform.values
        if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.floating):
            raise ValueError(
                f'a waveform must be floats [B, L], got {values.dtype} {values.shape}; for integers there is the '
                f'transform to_waveform, for frames another encoder.'
            )
        if self.conv_norm not in CONV_NORMS:
            raise ValueError(f'conv_norm must be one of {", ".join(CONV_NORMS)}, got {self.conv_norm!r}.')
        if values.shape[1] < self.receptive_field:
            raise ValueError(
                f'waveforms of {values.shape[1]} samples are shorter than the {self.receptive_field} that one token '
                f'sees; pad the batch at least so far.'
            )

    def _convolve(self, waveform: Ragged) -> tuple[Array, Array]:
        """Returns frames `[B, N, conv_widths[-1]]`, and their mask: real are those that see real samples only."""
        x = fill_masked(waveform.values, waveform.mask)[..., None]
        lengths = jnp.sum(waveform.mask, axis=1)
        for index, (width, kernel, stride) in enumerate(
            zip(self.conv_widths, self.conv_kernels, self.conv_strides, strict=True)
        ):
            conv = nn.Conv(
                width,
                (kernel,),
                (stride,),
                padding='VALID',
                use_bias=self.conv_bias,
                kernel_init=conv_kernel,
                dtype=self.dtype,
                name=f'conv_{index}',
            )
            x = conv(x)
            lengths = (lengths - kernel) // stride + 1
            mask = jnp.arange(x.shape[1])[None] < lengths[:, None]
            if self.conv_norm == 'layer':
                x = layer_norm(CONV_EPSILON, self.dtype, f'conv_{index}_norm')(x)
            elif index == 0:
                x = NormOverTime(name='conv_0_norm')(x, mask)
            x = GELU(x)
        return x, mask


class NormOverTime(nn.Module):
    """Gives every channel of a clip mean 0 and variance 1 over its real frames, then a learned scale and bias.

    GroupNorm (Wu and He 2018, 1803.08494) with one channel a group, which reads no padding.
    """

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Returns `[B, T, D]`, zero where masked before scale and bias, for `x` `[B, T, D]` and `mask` `[B, T]`."""
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        values = x.astype(jnp.float32)
        centred = fill_masked(values - masked_mean(values, mask)[:, None], mask)
        variance = masked_mean(centred**2, mask)[:, None]
        factor = scale[None, None] / jnp.sqrt(variance + CONV_EPSILON)
        return (centred * factor + bias[None, None]).astype(x.dtype)


class PositionalConv(nn.Module):
    """Tells tokens their places by what is around them: grouped convolution along time, GELU (2006.11477, section 2).

    The kernel is normalised (Salimans and Kingma 2016, 1602.07868), each tap by itself: `scale[k] v[k] / |v[k]|`, with
    the norm over both channel axes.

    Attributes:
      kernel_size: tokens that one output sees.
      groups: of channels; where they do not divide the input's, the most that do divide both.
    """

    kernel_size: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns `[B, T, D]` for `x` `[B, T, D]`, zero where masked."""
        width = x.shape[-1]
        groups = math.gcd(self.groups, width)
        kernel = self.param('kernel', conv_kernel, (self.kernel_size, width // groups, width))
        scale = self.param('scale', nn.initializers.ones, (self.kernel_size,))
        bias = self.param('bias', nn.initializers.zeros, (width,))
        norms = jnp.sqrt(jnp.sum(kernel**2, axis=(1, 2)))
        kernel = (kernel * (scale / norms)[:, None, None]).astype(x.dtype)
        convolve = functools.partial(
            jax.lax.conv_general_dilated,
            window_strides=(1,),
            padding=[(self.kernel_size // 2, (self.kernel_size - 1) // 2)],
            dimension_numbers=('NWC', 'WIO', 'NWC'),
        )
        # One plain convolution for each group: on two cores of an AMD EPYC, 4 x 150 tokens of width 768 take 38 ms
        # forward and 134 ms with gradients; XLA's grouped convolution takes 69 and 2619 ms.
        parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
        x = jnp.concatenate([convolve(part, taps) for part, taps in parts], axis=-1)
        return GELU(x + bias[None, None].astype(x.dtype))
