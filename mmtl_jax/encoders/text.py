"""Text encoders: a Ragged of token ids `[B, L]` to Features. What an id stands for is the tokenizer's business."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features, Ragged
from mmtl_jax.nn import LSTM, MLP, CheckedModule, TransformerBlock, channel_dropout, fill_masked


class BagOfEmbeddings(CheckedModule):
    """Averages the embeddings of a text's ids into one token: words, characters or hashed character n-grams.

    Attributes:
      vocab_size: ids run from 0 to `vocab_size - 1`.
      width: feature size D.
      embedding_width: size of the embeddings; `width` by default.
      depth: hidden layers after the average.
      dropout_rate: dropout on the average and in the hidden layers.
      token_dropout_rate: chance of leaving out an id in training (word dropout, Iyyer et al. 2015, P15-1162).
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    vocab_size: int
    width: int
    embedding_width: int | None = None
    depth: int = 0
    dropout_rate: float = 0.0
    token_dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, text: Ragged, *, train: bool) -> Features:
        """Returns Features with one token, real where the text has a real id."""
        mask = text.mask
        if train and self.token_dropout_rate > 0:
            mask &= jax.random.bernoulli(self.make_rng('dropout'), 1 - self.token_dropout_rate, mask.shape)
        embeddings = embed(Ragged(text.values, mask), self.vocab_size, self.embedding_width or self.width, self.dtype)
        count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1).astype(embeddings.dtype)
        vector = jnp.sum(embeddings, axis=1) / count
        vector = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.LayerNorm(dtype=self.dtype)(vector))
        vector = MLP(self.width, self.depth, self.dropout_rate, self.dtype)(vector, train=train)
        vector = nn.LayerNorm()(nn.Dense(self.width, dtype=self.dtype)(vector))
        return Features(tokens=vector[:, None], mask=jnp.any(text.mask, axis=1, keepdims=True))


class TextLSTM(CheckedModule):
    """An LSTM over the embeddings, one token per id.

    Attributes:
      vocab_size: ids run from 0 to `vocab_size - 1`.
      width: feature size D.
      depth: number of LSTM layers.
      bidirectional: whether each layer also reads from the end.
      dropout_rate: dropout on the embeddings and after each layer.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    vocab_size: int
    width: int
    depth: int = 1
    bidirectional: bool = True
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, text: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per id."""
        x = channel_dropout(self.dropout_rate, train=train)(embed(text, self.vocab_size, self.width, self.dtype))
        for _ in range(self.depth):
            x = LSTM(self.width, self.bidirectional, self.dtype)(x, text.mask)
            x = channel_dropout(self.dropout_rate, train=train)(x)
        x = nn.LayerNorm()(nn.Dense(self.width, dtype=self.dtype)(x))
        return Features(tokens=fill_masked(x, text.mask), mask=text.mask)


class TextTransformer(CheckedModule):
    """A pre-norm transformer with rotary positions over the embeddings, one token per id.

    Attributes:
      vocab_size: ids run from 0 to `vocab_size - 1`.
      width: feature size D.
      depth: number of blocks.
      num_heads: attention heads per block.
      dropout_rate: dropout on the embeddings and inside the blocks.
      dtype: of the arithmetic, such as `'bfloat16'`; parameters and features stay float32.
    """

    vocab_size: int
    width: int
    depth: int = 2
    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, text: Ragged, *, train: bool) -> Features:
        """Returns Features with a token per id."""
        x = channel_dropout(self.dropout_rate, train=train)(embed(text, self.vocab_size, self.width, self.dtype))
        for _ in range(self.depth):
            block = TransformerBlock(self.num_heads, rotary=True, dropout_rate=self.dropout_rate, dtype=self.dtype)
            x = block(x, text.mask, train=train)
        return Features(tokens=fill_masked(nn.LayerNorm()(x), text.mask), mask=text.mask)


def embed(text: Ragged, vocab_size: int, width: int, dtype: jnp.dtype | None = None) -> Array:
    """Returns embeddings `[B, L, width]` of unit variance, zero where masked; called inside a compact method.

    Raises:
      ValueError: the ids are not integers `[B, L]`.
    """
    if text.values.ndim != 2 or not jnp.issubdtype(text.values.dtype, jnp.integer):
        raise ValueError(
            f'text must be integer ids [B, L], got {text.values.dtype} {text.values.shape}; tokenize it first.'
        )
    table = nn.Embed(vocab_size, width, embedding_init=nn.initializers.normal(1.0), dtype=dtype, name='embedding')
    return fill_masked(table(fill_masked(text.values, text.mask)), text.mask)
