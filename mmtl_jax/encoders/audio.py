"""Audio encoders: a Ragged of log-mel frames `[B, T, mels]`, or of a waveform `[B, L]`, to a token per few frames."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.nn import (
    LSTM,
    CheckedModule,
    DepthwiseConv,
    FeedForward,
    LogMel,
    ResidualConv,
    SelfAttention,
    channel_dropout,
    fill_masked,
    masked_mean,
)

FrontEnd = Mapping[str, Any]


class AudioCNN(CheckedModule):
    """Residual convolutions along time over stacked frames.

    Attributes:
      width: feature size D.
      depth: number of residual convolutions.
      kernel_size: tokens that one convolution sees.
      stack: consecutive frames joined into one token.
      dropout_rate: dropout in every residual branch.
      global_context: whether, half way up, every token hears of the whole clip (after Han et al. 2020, 2005.03191).
      front_end: for waveforms, the arguments of `nn.LogMel` ({} for its defaults); None when frames come in.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    depth: int = 4
    kernel_size: int = 5
    stack: int = 4
    dropout_rate: float = 0.0
    global_context: bool = True
    front_end: FrontEnd | None = None
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, audio: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per `stack` frames."""
        x, mask = tokens_from(audio, self.stack, self.front_end)
        x = nn.LayerNorm(dtype=self.dtype)(nn.Dense(self.width, dtype=self.dtype)(x))
        for layer in range(self.depth):
            if self.global_context and layer == self.depth // 2:
                x = GlobalContext(self.dtype)(x, mask)
            x = ResidualConv(self.kernel_size, self.dropout_rate, self.dtype)(x, mask, train=train)
        return Features(tokens=fill_masked(nn.LayerNorm()(x), mask), mask=mask)


class GlobalContext(nn.Module):
    """Adds to every token a function of the mean over the clip, which tells who speaks and in which language.

    Attributes:
      dtype: of the arithmetic.
    """

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Returns `[B, T, D]` for `x` `[B, T, D]` and `mask` `[B, T]`."""
        width = x.shape[-1]
        mean = masked_mean(nn.LayerNorm(dtype=self.dtype)(x), mask)
        context = nn.gelu(nn.Dense(width, dtype=self.dtype)(mean))
        return x + nn.Dense(width, dtype=self.dtype)(context)[:, None]


class AudioLSTM(CheckedModule):
    """LSTM layers over stacked frames.

    Attributes:
      width: feature size D.
      depth: number of LSTM layers.
      bidirectional: whether each layer also reads from the end.
      stack: consecutive frames joined into one token.
      dropout_rate: dropout after each layer.
      front_end: as in `AudioCNN`.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    depth: int = 2
    bidirectional: bool = True
    stack: int = 4
    dropout_rate: float = 0.0
    front_end: FrontEnd | None = None
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, audio: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per `stack` frames."""
        x, mask = tokens_from(audio, self.stack, self.front_end)
        x = nn.LayerNorm(dtype=self.dtype)(nn.Dense(self.width, dtype=self.dtype)(x))
        for _ in range(self.depth):
            x = LSTM(self.width, self.bidirectional, self.dtype)(x, mask)
            x = channel_dropout(self.dropout_rate, train=train)(x)
        return Features(tokens=fill_masked(nn.LayerNorm()(nn.Dense(self.width, dtype=self.dtype)(x)), mask), mask=mask)


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer (Gulati et al. 2020, 2005.08100).

    Differences: LayerNorm instead of BatchNorm in the convolution (no running statistics, and padding cannot leak), and
    rotary positions instead of Transformer-XL's relative ones.

    Attributes:
      num_heads: attention heads.
      kernel_size: tokens that the depthwise convolution sees.
      expansion: hidden width of the feed-forward layers over the input's.
      dropout_rate: dropout in every branch and on the attention weights.
      dtype: of the arithmetic.
    """

    num_heads: int = 4
    kernel_size: int = 15
    expansion: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
        """Returns `[B, T, D]` for `x` `[B, T, D]` and `mask` `[B, T]`."""
        norm = functools.partial(nn.LayerNorm, dtype=self.dtype)

        def dropout(branch: Array) -> Array:
            return channel_dropout(self.dropout_rate, train=train)(branch)

        def feed_forward(x: Array) -> Array:
            return FeedForward(self.expansion, self.dropout_rate, self.dtype)(norm()(x), train=train)

        x = fill_masked(x, mask)
        x = x + 0.5 * feed_forward(x)
        attention = SelfAttention(self.num_heads, self.dropout_rate, rotary=True, dtype=self.dtype)
        x = x + dropout(attention(norm()(x), mask, train=train))
        x = x + dropout(self.convolve(norm()(x), mask))
        x = x + 0.5 * feed_forward(x)
        return nn.LayerNorm()(x)

    def convolve(self, x: Array, mask: Array) -> Array:
        """Returns the branch of figure 2 in the paper, without its first norm and its dropout."""
        width = x.shape[-1]
        x = nn.glu(nn.Dense(2 * width, dtype=self.dtype)(x))
        x = nn.LayerNorm(dtype=self.dtype)(DepthwiseConv(self.kernel_size, self.dtype)(x, mask))
        return nn.Dense(width, dtype=self.dtype)(nn.swish(x))


class AudioConformer(CheckedModule):
    """Conformer blocks (convolution and attention, 2005.08100) over stacked frames.

    Attributes:
      width: feature size D.
      depth: number of blocks.
      num_heads: attention heads per block.
      kernel_size: tokens that a depthwise convolution sees.
      expansion: hidden width of the feed-forward layers over `width`.
      stack: consecutive frames joined into one token.
      dropout_rate: dropout in every branch.
      front_end: as in `AudioCNN`.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    width: int
    depth: int = 4
    num_heads: int = 4
    kernel_size: int = 15
    expansion: int = 4
    stack: int = 4
    dropout_rate: float = 0.0
    front_end: FrontEnd | None = None
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, audio: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per `stack` frames."""
        x, mask = tokens_from(audio, self.stack, self.front_end)
        x = channel_dropout(self.dropout_rate, train=train)(nn.Dense(self.width, dtype=self.dtype)(x))
        for _ in range(self.depth):
            block = ConformerBlock(self.num_heads, self.kernel_size, self.expansion, self.dropout_rate, self.dtype)
            x = block(x, mask, train=train)
        return Features(tokens=fill_masked(x, mask), mask=mask)


def tokens_from(audio: Ragged, stack: int, front_end: FrontEnd | None) -> tuple[Array, Array]:
    """Returns tokens `[B, ceil(T / stack), stack * mels]` and their mask; a token is real if one of its frames is.

    Raises:
      ValueError: a waveform without a front end, or frames with one.
    """
    expected = 3 if front_end is None else 2
    if audio.values.ndim != expected:
        wanted = 'frames [B, T, mels]' if front_end is None else 'a waveform [B, L]'
        hint = 'set front_end={} for a waveform' if front_end is None else 'leave front_end out for frames'
        raise ValueError(f'audio must be {wanted}, got {audio.values.shape}; {hint}.')
    frames = audio if front_end is None else LogMel(**front_end, name='front_end')(audio)
    values = fill_masked(frames.values, frames.mask)
    batch, length, mels = values.shape
    missing = -length % stack
    values = jnp.pad(values, ((0, 0), (0, missing), (0, 0))).reshape(batch, -1, stack * mels)
    mask = jnp.pad(frames.mask, ((0, 0), (0, missing))).reshape(batch, -1, stack)
    return values, jnp.any(mask, axis=-1)
