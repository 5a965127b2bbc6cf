"""The layers of the transformers into which published weights fit: BERT, ViT, CLIP, Whisper, wav2vec 2.0."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array
from mmtl_jax.nn import fill_masked


def quick_gelu(x: Array) -> Array:
    """Returns x sigmoid(1.702 x), the approximation of GELU (Hendrycks and Gimpel 2016, 1606.08415) that CLIP has."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    'gelu': functools.partial(nn.gelu, approximate=False),
    'gelu_new': functools.partial(nn.gelu, approximate=True),
    'quick_gelu': quick_gelu,
    'relu': nn.relu,
}


class Attention(nn.Module):
    """Multi-head self-attention with the names of `nn.MultiHeadDotProductAttention`, which has a bias everywhere.

    Attributes:
      num_heads: attention heads; a head has the input's channels over `num_heads`, rounded up.
      key_bias: whether keys have a bias.
      dropout_rate: dropout on the attention weights.
      dtype: of the arithmetic.
    """

    num_heads: int
    key_bias: bool = True
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]`; `mask` broadcasts to `[B, heads, N, N]`, True = attends."""
        width = tokens.shape[-1]
        heads = (self.num_heads, -(-width // self.num_heads))
        query, key, value = (
            nn.DenseGeneral(heads, use_bias=bias, dtype=self.dtype, name=name)(tokens)
            for name, bias in (('query', True), ('key', self.key_bias), ('value', True))
        )
        dropout = train and self.dropout_rate > 0
        mixed = nn.dot_product_attention(
            query,
            key,
            value,
            mask=mask,
            dropout_rng=self.make_rng('dropout') if dropout else None,
            dropout_rate=self.dropout_rate,
            deterministic=not train,
            dtype=self.dtype,
        )
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name='out')(mixed)


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward layer, each added to its input; dropout is per element, as in the papers.

    Attributes:
      num_heads: attention heads.
      mlp_width: hidden size of the feed-forward layer.
      epsilon: what LayerNorm adds to the variance.
      norm_first: LayerNorm on the input of both branches (ViT), or on the sums (BERT).
      activation: a key of `ACTIVATIONS`.
      dropout_rate: dropout on the attention weights and both branches.
      dtype: of the arithmetic.
      causal: whether a token attends only to those before it and itself.
      key_bias: whether keys have a bias, which no softmax sees.
    """

    num_heads: int
    mlp_width: int
    epsilon: float
    norm_first: bool
    activation: str = 'gelu'
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None
    causal: bool = False
    key_bias: bool = True

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None, *, train: bool) -> Array:
        """Returns `[B, N, D]` for `tokens` `[B, N, D]`; where `mask` `[B, N]` is False, nobody attends."""
        width = tokens.shape[-1]
        dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
        attention = Attention(self.num_heads, self.key_bias, self.dropout_rate, self.dtype, name='attention')
        mlp_in = nn.Dense(self.mlp_width, dtype=self.dtype, name='mlp_in')
        mlp_out = nn.Dense(width, dtype=self.dtype, name='mlp_out')
        attention_norm = layer_norm(self.epsilon, self.dtype, 'attention_norm')
        mlp_norm = layer_norm(self.epsilon, self.dtype, 'mlp_norm')

        attended = None if mask is None else mask[:, None, None, :]
        if self.causal:
            attended = nn.combine_masks(attended, nn.make_causal_mask(tokens[..., 0], dtype=bool))

        def attend(x: Array) -> Array:
            return dropout(attention(x, attended, train=train))

        def feed_forward(x: Array) -> Array:
            return dropout(mlp_out(ACTIVATIONS[self.activation](mlp_in(x))))

        if self.norm_first:
            tokens = tokens + attend(attention_norm(tokens))
            return tokens + feed_forward(mlp_norm(tokens))
        tokens = attention_norm(tokens + attend(tokens))
        return mlp_norm(tokens + feed_forward(tokens))


def run_layers(
    encoder: nn.Module,
    x: Array,
    mask: Array | None = None,
    *,
    train: bool,
    norm_first: bool,
    causal: bool = False,
    key_bias: bool = True,
) -> Array:
    """Returns what `layer_0` to `layer_<depth - 1>` make of the embeddings; called inside an encoder's compact method.

    The hidden states, `x` first and then those after each layer, zero where masked, are sown in `intermediates`.

    Args:
      encoder: has the fields `depth`, `num_heads`, `mlp_width` (None for `4 * D`), `epsilon`, `activation`,
        `dropout_rate` and `dtype`.
      x: embeddings `[B, N, D]`; dropout acts on them first.
      mask: `[B, N]`, where it is False nobody attends.
      train: whether dropout acts.
      norm_first: where LayerNorm stands, see `TransformerLayer`.
      causal: whether a token attends only to those before it and itself.
      key_bias: whether keys have a bias.

    Raises:
      ValueError: an unknown activation.
    """
    if encoder.activation not in ACTIVATIONS:
        raise ValueError(f'activation must be one of {", ".join(ACTIVATIONS)}, got {encoder.activation!r}.')

    def sow(state: Array) -> None:
        encoder.sow('intermediates', 'hidden_states', state if mask is None else fill_masked(state, mask))

    x = nn.Dropout(encoder.dropout_rate, deterministic=not train)(x)
    sow(x)
    for index in range(encoder.depth):
        layer = TransformerLayer(
            num_heads=encoder.num_heads,
            mlp_width=encoder.mlp_width or 4 * x.shape[-1],
            epsilon=encoder.epsilon,
            norm_first=norm_first,
            activation=encoder.activation,
            dropout_rate=encoder.dropout_rate,
            dtype=encoder.dtype,
            causal=causal,
            key_bias=key_bias,
            name=f'layer_{index}',
        )
        x = layer(x, mask, train=train)
        sow(x)
    return x


def layer_norm(epsilon: float, dtype: jnp.dtype | None, name: str) -> nn.LayerNorm:
    """Returns LayerNorm with the variance as the mean of squared deviations.

    The faster mean of squares minus squared mean loses digits that parity with the original needs.
    """
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)
