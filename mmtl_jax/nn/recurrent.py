"""A masked LSTM, in one or both directions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn.masking import fill_masked


class LSTM(nn.Module):
    """Long short-term memory over the real steps (Hochreiter & Schmidhuber 1997).

    The state stands still in masked steps, so the backward direction starts at the last real one. The input products of
    all steps are one matrix product before the loop, and both directions share the loop, which makes it about twice as
    fast on CPU as a cell that does everything per step.

    Attributes:
      width: size of the output; with two directions each has half of it (rounded up, then cut).
      bidirectional: whether a second LSTM reads from the end.
    """

    width: int
    bidirectional: bool = True

    @nn.compact
    def __call__(self, steps: Array, mask: Array) -> Array:
        """Returns `[B, T, width]` for `steps` `[B, T, D]` and `mask` `[B, T]`; zero in masked steps."""
        directions = 2 if self.bidirectional else 1
        hidden = -(-self.width // directions)
        batch, length = mask.shape
        inputs = nn.Dense(directions * 4 * hidden, use_bias=False, name='input')(fill_masked(steps, mask))
        inputs = inputs.reshape(batch, length, directions, 4 * hidden).transpose(1, 2, 0, 3)
        moves = jnp.broadcast_to(mask.T[:, None, :, None], (length, directions, batch, 1))
        if self.bidirectional:
            inputs = jnp.stack([inputs[:, 0], inputs[::-1, 1]], axis=1)
            moves = jnp.stack([moves[:, 0], moves[::-1, 1]], axis=1)
        recurrent = self.param(
            'recurrent',
            nn.initializers.orthogonal(column_axis=-1),
            (directions, hidden, 4 * hidden),
        )
        bias = self.param('bias', forget_gate_open, (directions, 1, 4 * hidden))

        def step(carry, inputs_and_moves):
            gates, move = inputs_and_moves
            gates = gates + jnp.einsum('dbh,dhg->dbg', carry[0], recurrent) + bias
            state = update(carry[1], gates)
            state = tuple(jnp.where(move, new, old) for new, old in zip(state, carry, strict=True))
            return state, state[0]

        start = jnp.zeros((directions, batch, hidden), inputs.dtype)
        _, outputs = jax.lax.scan(step, (start, start), (inputs, moves))
        if self.bidirectional:
            outputs = jnp.stack([outputs[:, 0], outputs[::-1, 1]], axis=1)
        outputs = outputs.transpose(2, 0, 1, 3).reshape(batch, length, directions * hidden)
        return fill_masked(outputs[..., : self.width], mask)


def update(cell: Array, gates: Array) -> tuple[Array, Array]:
    """Returns the new output and cell `[..., H]` from the old cell and the gates `[..., 4 H]`."""
    admit, forget, write, show = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(admit) * jnp.tanh(write)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell


def forget_gate_open(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Returns zeros, but one for the forget gate: a new network remembers (Jozefowicz et al. 2015)."""
    del key
    hidden = shape[-1] // 4
    return jnp.zeros(shape, dtype).at[..., hidden : 2 * hidden].set(1)
