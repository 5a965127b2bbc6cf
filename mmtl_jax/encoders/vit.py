"""The vision transformer, into which published weights fit."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Features
from mmtl_jax.encoders.image import project, standardise
from mmtl_jax.encoders.resnet import PROJECTION
from mmtl_jax.encoders.transformer_layer import layer_norm, run_layers
from mmtl_jax.nn import CheckedModule, conv_kernel

POOLINGS = ('class', 'mean', 'mean_max', 'none')
# Of Keys's cubic convolution (1981), as PyTorch chooses it; JAX and PIL take -0.5.
CUBIC = -0.75


class ViT(CheckedModule):
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
      activation: 'gelu' (exact), 'gelu_new' (by tanh), 'quick_gelu' (by the sigmoid) or 'relu'.
      embedding_norm: whether LayerNorm follows the positions; then the patches have no bias, as in CLIP.
      shared_width: size of a space that several towers share: the tokens are projected into it, without bias. None for
        a tower without.
      dtype: of the arithmetic up to the last LayerNorm, such as `jnp.bfloat16`; parameters and features stay float32.
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
    activation: str = 'gelu'
    embedding_norm: bool = False
    shared_width: int | None = None
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool) -> Features:
        """Returns Features with one map, the last hidden states of the patches `[B, h, w, hidden_width]`.

        Raises:
          ValueError: images smaller than a patch, or an unknown pooling.
        """
        if self.pooling not in POOLINGS:
            raise ValueError(f'{type(self).__name__}: pooling must be one of {POOLINGS}, got {self.pooling!r}.')
        x, grid = self._embed(standardise(images, self.mean, self.deviation))
        if self.embedding_norm:
            x = layer_norm(self.epsilon, self.dtype, 'embedding_norm')(x)
        x = run_layers(self, x, train=train, norm_first=True)
        x = layer_norm(self.epsilon, None, 'norm')(x)
        patches = x[:, 1:].reshape(len(x), *grid, self.hidden_width)
        # The class token as a map of one cell, whose mean it is.
        seen, pooling = (x[:, :1, None], 'mean') if self.pooling == 'class' else (patches, self.pooling)
        if self.shared_width is not None:
            seen = shared_projection(self.shared_width)(seen)
        features = project(self, (seen,), train=train, names=PROJECTION, pooling=pooling)
        return features.replace(maps=(patches,))

    def _embed(self, images: Array) -> tuple[Array, tuple[int, int]]:
        """Returns class token and patches with their positions, `[B, 1 + h * w, hidden_width]`, and `(h, w)`."""
        batch, height, width, _ = images.shape
        rows, columns = height // self.patch, width // self.patch
        if not rows or not columns:
            name = type(self).__name__
            raise ValueError(
                f'{name}: images of {height} x {width} pixels hold no patch of {self.patch}; enlarge them.'
            )
        sides = (self.patch, self.patch)
        patches = nn.Conv(
            self.hidden_width,
            sides,
            sides,
            padding='VALID',
            use_bias=not self.embedding_norm,
            kernel_init=conv_kernel,
            dtype=self.dtype,
            name='patch_embedding',
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


def shared_projection(width: int) -> nn.Dense:
    """Returns the last layer of a tower that shares its space with others, as CLIP's do; called in a compact method."""
    return nn.Dense(width, use_bias=False, name='shared_projection')


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
