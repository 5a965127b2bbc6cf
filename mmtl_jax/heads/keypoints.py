"""Where certain points of an object are."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.heads.pyramid import CellReadout, maps_of
from mmtl_jax.nn import CheckedModule


class Keypoints(CheckedModule):
    """A heat map for each point: `Features` with maps -> logits over the cells `[B, h, w, num_keypoints]`.

    Attributes:
      num_keypoints: number of points.
      width: channels of the pyramid.
      level: the finest map that is read, 0 for the finest of all.
      dropout_rate: before the last layer, of whole channels.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and predictions stay float32.
    """

    num_keypoints: int
    width: int = 64
    level: int = 0
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, features: Features, *, train: bool) -> Array:
        """Returns the logits `[B, h, w, num_keypoints]`, of a softmax over the cells of each point.

        Raises:
          ValueError: features without maps, or of several modalities.
        """
        maps = maps_of(features, 'Keypoints', self.level)
        readout = CellReadout(self.num_keypoints, self.width, dropout_rate=self.dropout_rate, dtype=self.dtype)
        return readout(maps, train=train)


def decode_keypoints(logits: Array) -> dict[str, Array]:
    """Returns where each point is, and how sure that is; runs under jit.

    The place is the mean of the centres of the 3x3 cells around the most probable one, weighted with their
    probabilities: the expectation of "integral" regression (Sun et al. 2017, 1711.08229, equation 2), kept to one mode.

    Args:
      logits: `[B, h, w, K]`.

    Returns:
      `points` `[B, K, 2]`: y and x as shares of the sides; `probabilities` `[B, K]` that the point lies in these cells.
    """
    batch, height, width, number = logits.shape
    cells = logits.astype(jnp.float32).reshape(batch, height * width, number)
    best = jnp.argmax(cells, axis=1)
    rows, columns = jnp.divmod(jnp.arange(height * width), width)
    near = jnp.abs(rows[None, :, None] - (best // width)[:, None]) <= 1
    near &= jnp.abs(columns[None, :, None] - (best % width)[:, None]) <= 1
    weights = jnp.where(near, jax.nn.softmax(cells, axis=1), 0)
    mass = jnp.sum(weights, axis=1)
    centres = jnp.stack([(rows + 0.5) / height, (columns + 0.5) / width], axis=-1)
    points = jnp.einsum('bnk,nd->bkd', weights, centres, precision='highest') / mass[..., None]
    return {'points': points, 'probabilities': mass}
