"""Dropout for sequences."""

import flax.linen as nn


def channel_dropout(rate: float, *, train: bool) -> nn.Dropout:
    """Returns dropout for `[B, N, D]` that leaves out a channel in all tokens of a row (SpatialDropout, 1411.4280).

    One random number per row and channel instead of one per token: on CPU, dropout that draws them per token took a
    third of an audio encoder's step, this one takes a twentieth.
    """
    return nn.Dropout(rate, broadcast_dims=(-2,), deterministic=not train)
