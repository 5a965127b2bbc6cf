"""The text encoder of Devlin et al. 2018 (BERT), for pretrained weights."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.encoders.transformer_layer import layer_norm, run_layers
from mmtl_jax.nn import CheckedModule, fill_masked


class BERT(CheckedModule):
    """A post-norm transformer with learned positions (Devlin et al. 2018, 1810.04805), one token per id.

    The defaults are those of BERT-base. DistilBERT (1910.01108) has half the layers and no types; MiniLM (2002.10957)
    is narrower. There is no pooler. `pretrained.bert` loads published weights; from scratch `TextTransformer` learns
    faster.

    The hidden states, the embeddings first and then those after each layer, zero where masked, are a tuple of
    `depth + 1` arrays `[B, L, width]`:
    `encoder.apply(variables, text, train=False, mutable='intermediates')[1]['intermediates']['hidden_states']`.

    Attributes:
      vocab_size: ids run from 0 to `vocab_size - 1`.
      width: feature size D.
      depth: number of layers.
      num_heads: attention heads per layer; a head has `width / num_heads` channels, rounded up.
      mlp_width: hidden size of the feed-forward layers; `4 * width` by default.
      max_length: number of positions, the most ids that a text can have.
      num_types: kinds of segments (`type_vocab_size`); 0 for a model without.
      epsilon: what LayerNorm adds to the variance.
      activation: 'gelu' (exact), 'gelu_new' (by tanh), 'quick_gelu' (by the sigmoid) or 'relu'.
      dropout_rate: dropout on the embeddings, the attention weights and both branches of a layer; 0.1 in the paper.
      dtype: of the arithmetic, such as `jnp.bfloat16`; parameters and features stay float32.
    """

    least_sizes: ClassVar[Mapping[str, int]] = {'num_types': 0}

    vocab_size: int
    width: int
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None
    max_length: int = 512
    num_types: int = 2
    epsilon: float = 1e-12
    activation: str = 'gelu'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, text: Ragged, *, train: bool, types: Array | None = None) -> Features:
        """Returns Features with a token per id.

        Args:
          text: ids `[B, L]`, special tokens such as [CLS] included, the real ones first.
          train: whether dropout acts.
          types: kind of segment of each id, `[B, L]`; all 0 by default.

        Raises:
          ValueError: the ids are not integers `[B, L]`, more than `max_length`, or `types` without `num_types`.
        """
        check_ids(text, self.max_length, 'BERT')
        if types is not None and not self.num_types:
            raise ValueError('this BERT has num_types=0, so it takes no types.')
        mask = text.mask
        x = run_layers(self, self._embed(text, types), mask, train=train, norm_first=False)
        return Features(tokens=fill_masked(x.astype(jnp.float32), mask), mask=mask)

    def _embed(self, text: Ragged, types: Array | None) -> Array:
        """Returns the normalised sum of the embeddings of ids, positions and types, `[B, L, D]`."""

        def table(size: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(0.02)
            return nn.Embed(size, self.width, embedding_init=init, dtype=self.dtype, name=f'{name}_embedding')

        x = table(self.vocab_size, 'word')(fill_masked(text.values, text.mask))
        x = x + table(self.max_length, 'position')(jnp.arange(text.values.shape[1]))[None]
        if self.num_types:
            types = jnp.zeros_like(text.values) if types is None else types
            x = x + table(self.num_types, 'type')(fill_masked(types, text.mask))
        return layer_norm(self.epsilon, self.dtype, 'embedding_norm')(x)


def check_ids(text: Ragged, max_length: int, model: str) -> None:
    """Raises a `ValueError` unless the text is integer ids `[B, L]` with L of at most `max_length`."""
    if text.values.ndim != 2 or not jnp.issubdtype(text.values.dtype, jnp.integer):
        raise ValueError(
            f'text must be integer ids [B, L], got {text.values.dtype} {text.values.shape}; tokenize it first.'
        )
    if text.values.shape[1] > max_length:
        raise ValueError(
            f'text of {text.values.shape[1]} ids is longer than the {max_length} positions of this {model}; cut it to '
            f'max_length when tokenizing.'
        )
