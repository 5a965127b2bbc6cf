"""The vision transformer, into which published weights fit."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Features
from mmtl_jax.encoders.image import project, standardise
from mmtl_jax.encoders.resnet import PROJECTION
from mmtl_jax.encoders.transformer_layer import TransformerLayer, layer_norm
from mmtl_jax.nn import conv_kernel

POOLINGS = ('class', 'mean', 'mean_max', 'none')
# Of Keys's cubic convolution (1981), as PyTorch chooses it; JAX and PIL take -0.5.
CUBIC = -0.75


class ViT(nn.Module):
    """A pre-norm transformer over square patches (Dosovitskiy et al. 2020, 2010.11929). The defaults are those of S/16.

    B/16 has `hidden_width=768, num_heads=12`. Positions are learned for images of `image_size`; for others they are
    interpolated (bicubic). Rows and columns of pixels beyond the last whole patch are not seen.

    The hidden states, the embeddings first and then those after each layer, the class token before the patches, are a
    tuple of `depth + 1` arrays `[B, 1 + h * w, hidden_width]`:
    `encoder.apply(variables, images, train=False, mutable='intermediates')[1]['intermediates']['hidden_states']`.

    Attributes:
      width: feature size D; None hands on the pooled hidden states as they are.
      patch: side of a patch in pixels.
      image_size: side of the images that the positions were learned for.
      hidden_width: size of the hidden states.
      depth: number of layers.
      num_heads: attention heads per layer; a head has `hidden_width / num_heads` channels, rounded up.
      mlp_width: hidden size of the feed-forward layers; `4 * hidden_width` by default.
      epsilon: what LayerNorm adds to the variance.
      pooling: 'class' gives the class token, 'mean' or 'mean_max' over the patches one token, 'none' a token per patch,
        row by row.
      dropout_rate: dropout on the embeddings, the attention weights, both branches of a layer and before the last
        projection.
      mean: of the pixels of each channel, subtracted.
      deviation: of the pixels of each channel, divided by.
    """

    width: int | None
    patch: int = 16
    image_size: int = 224
    hidden_width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_width: int | None = None
    epsilon: float = 1e-6
    pooling: str = 'class'
    dropout_rate: float = 0.0
    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with one map, the last hidden states of the patches `[B, h, w, hidden_width]`.

        Raises:
          ValueError: images smaller than a patch, or an unknown pooling.
        """
        if self.pooling not in POOLINGS:
            raise ValueError(f'ViT: pooling must be one of {POOLINGS}, got {self.pooling!r}.')
        x, grid = self._embed(standardise(images, self.mean, self.deviation))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        self.sow('intermediates', 'hidden_states', x)
        for index in range(self.depth):
            layer = TransformerLayer(
                num_heads=self.num_heads,
                mlp_width=self.mlp_width or 4 * self.hidden_width,
                epsilon=self.epsilon,
                norm_first=True,
                dropout_rate=self.dropout_rate,
                name=f'layer_{index}',
            )
            x = layer(x, train=train)
            self.sow('intermediates', 'hidden_states', x)
        x = layer_norm(self.epsilon, None, 'norm')(x)
        patches = x[:, 1:].reshape(len(x), *grid, self.hidden_width)
        if self.pooling != 'class':
            return project(self, (patches,), train=train, names=PROJECTION)
        # As a map of one cell, whose mean it is.
        features = project(self, (x[:, :1, None],), train=train, names=PROJECTION, pooling='mean')
        return features.replace(maps=(patches,))

    def _embed(self, images: Array) -> tuple[Array, tuple[int, int]]:
        """Returns class token and patches with their positions, `[B, 1 + h * w, hidden_width]`, and `(h, w)`."""
        batch, height, width, _ = images.shape
        rows, columns = height // self.patch, width // self.patch
        if not rows or not columns:
            raise ValueError(f'ViT: images of {height} x {width} pixels hold no patch of {self.patch}; enlarge them.')
        sides = (self.patch, self.patch)
        patches = nn.Conv(
            self.hidden_width, sides, sides, padding='VALID', kernel_init=conv_kernel, name='patch_embedding'
        )(images)
        init = nn.initializers.normal(0.02)
        side = self.image_size // self.patch
        first = self.param('class_token', init, (1, 1, self.hidden_width))
        positions = self.param('position_embedding', init, (1, 1 + side * side, self.hidden_width))
        ahead, beside = positions[:, :1], positions[:, 1:]
        if (rows, columns) != (side, side):
            vertical, horizontal = resize_matrix(side, rows), resize_matrix(side, columns)
            square = beside.reshape(side, side, self.hidden_width)
            beside = jnp.einsum('ai,bj,ijd->abd', vertical, horizontal, square).reshape(1, -1, self.hidden_width)
        first = jnp.broadcast_to(first + ahead, (batch, 1, self.hidden_width))
        x = patches.reshape(batch, rows * columns, self.hidden_width) + beside
        return jnp.concatenate([first, x], axis=1), (rows, columns)


@functools.cache
def resize_matrix(size: int, new: int) -> np.ndarray:
    """Returns the matrix `[new, size]` of cubic interpolation between cells; those beyond the border repeat the last.

    A row holds the weights of `torch.nn.functional.interpolate(mode='bicubic', align_corners=False)`.
    """
    centres = (np.arange(new) + 0.5) * size / new - 0.5
    matrix = np.zeros((new, size))
    for offset in range(-1, 3):
        cells = np.floor(centres) + offset
        distance = np.abs(centres - cells)
        near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
        far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        np.add.at(matrix, (np.arange(new), np.clip(cells, 0, size - 1).astype(int)), weights)
    return matrix.astype(np.float32)
