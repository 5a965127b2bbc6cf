"""CLIP's two towers (Radford et al. 2021, 2103.00020), into which published weights fit."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.encoders.bert import check_ids
from mmtl_jax.encoders.resnet import PROJECTION
from mmtl_jax.encoders.transformer_layer import layer_norm, run_layers
from mmtl_jax.encoders.vit import ViT, shared_projection
from mmtl_jax.nn import CheckedModule, fill_masked

TEXT_POOLINGS = ('end', 'none')


class CLIPImage(ViT):
    """CLIP's vision transformer: `ViT` with other defaults, those of B/32.

    B/16 has `patch=16`; L/14 `patch=14, hidden_width=1024, depth=24, num_heads=16, shared_width=768`. With `width=None`
    the token is the embedding in the space that it shares with `CLIPText`; the cosine of two embeddings, times
    `pretrained.clip_logit_scale`, is the logit of an image and a text (figure 3 of the paper).
    """

    patch: int = 32
    hidden_width: int = 768
    num_heads: int = 12
    epsilon: float = 1e-5
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    activation: str = 'quick_gelu'
    embedding_norm: bool = True
    shared_width: int | None = 512


class CLIPText(CheckedModule):
    """CLIP's text transformer, pre-norm and causal; the defaults are those beside the image towers B/32 and B/16.

    Beside L/14 stands `hidden_width=768, num_heads=12, shared_width=768`. A text is one token, the embedding of its end
    token, which alone has seen all of it.

    The hidden states, the embeddings first and then those after each layer, zero where masked, are a tuple of
    `depth + 1` arrays `[B, L, hidden_width]`:
    `encoder.apply(variables, text, train=False, mutable='intermediates')[1]['intermediates']['hidden_states']`.

    Attributes:
      vocab_size: ids run from 0 to `vocab_size - 1`; 49408 in published models.
      width: feature size D; None hands on what stands in the shared space, or the last hidden states.
      hidden_width: size of the hidden states.
      depth: number of layers.
      num_heads: attention heads per layer; a head has `hidden_width / num_heads` channels, rounded up.
      mlp_width: hidden size of the feed-forward layers; `4 * hidden_width` by default.
      max_length: number of positions, the most ids that a text can have.
      epsilon: what LayerNorm adds to the variance.
      activation: 'gelu' (exact), 'gelu_new' (by tanh), 'quick_gelu' (by the sigmoid) or 'relu'.
      shared_width: size of the space shared with the images; None for a tower without the projection into it.
      end_id: id of the end token, the first of which is pooled, or the last id of a text without. None takes the
        highest id of the text, as the authors' code does.
      pooling: 'end' gives one token, 'none' a token per id.
      dropout_rate: dropout on the embeddings, the attention weights, both branches of a layer and before the last
        projection; none in the paper.
      dtype: of the arithmetic up to the last LayerNorm, such as `jnp.bfloat16`; parameters and features stay float32.
    """

    least_sizes: ClassVar[Mapping[str, int]] = {'end_id': 0}

    vocab_size: int
    width: int | None
    hidden_width: int = 512
    depth: int = 12
    num_heads: int = 8
    mlp_width: int | None = None
    max_length: int = 77
    epsilon: float = 1e-5
    activation: str = 'quick_gelu'
    shared_width: int | None = 512
    end_id: int | None = None
    pooling: str = 'end'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, text: Ragged, *, train: bool) -> Features:
        """Returns Features with one token, or a token per id; a text without ids has none.

        Args:
          text: ids `[B, L]`, start and end token included, the real ones first.
          train: whether dropout acts.

        Raises:
          ValueError: the ids are not integers `[B, L]`, more than `max_length`, or an unknown pooling.
        """
        check_ids(text, self.max_length, 'CLIPText')
        if self.pooling not in TEXT_POOLINGS:
            raise ValueError(f'CLIPText: pooling must be one of {TEXT_POOLINGS}, got {self.pooling!r}.')
        mask, ids = text.mask, fill_masked(text.values, text.mask)
        x = self._table(self.vocab_size, 'word')(ids)
        x = x + self._table(self.max_length, 'position')(jnp.arange(ids.shape[1]))[None]
        x = run_layers(self, x, mask, train=train, norm_first=True, causal=True)
        x = layer_norm(self.epsilon, None, 'norm')(x)
        if self.pooling == 'end':
            x = jnp.take_along_axis(x, self._end(ids, mask)[:, None, None], axis=1)
            mask = jnp.any(mask, axis=1, keepdims=True)
        if self.shared_width is not None:
            x = shared_projection(self.shared_width)(x)
        if self.width is not None:
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
            x = nn.LayerNorm(name=PROJECTION[1])(nn.Dense(self.width, name=PROJECTION[0])(x))
        return Features(tokens=fill_masked(x, mask), mask=mask)

    def _table(self, size: int, name: str) -> nn.Embed:
        init = nn.initializers.normal(0.02)
        return nn.Embed(size, self.hidden_width, embedding_init=init, dtype=self.dtype, name=f'{name}_embedding')

    def _end(self, ids: Array, mask: Array) -> Array:
        """Returns the place of the end token, `[B]`."""
        if self.end_id is None:
            return jnp.argmax(jnp.where(mask, ids, -1), axis=1)
        ends = mask & (ids == self.end_id)
        last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
        return jnp.where(jnp.any(ends, axis=1), jnp.argmax(ends, axis=1), last)
