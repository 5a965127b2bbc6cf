"""What fusions by attention share: tokens of one width, what comes out of them, the record of who attends to whom."""

import itertools
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmtl_jax.core.types import Array, Features
from mmtl_jax.fusion.vectors import check_fields, learned_vector, one_token
from mmtl_jax.nn import AttentionBlock, AttentionPooling, CheckedModule, fill_masked, masked_mean, sinusoids

POOLINGS = ('attention', 'mean', 'none')
Named = dict[str, Array]


class TokenFusion(CheckedModule):
    """The fields of the fusions that take the tokens of all modalities.

    Each real token x becomes W_m x + b_m, where the bias tells its modality, plus a sinusoid of its position. Who
    attends to whom stands among the `intermediates` as `attention`: for each call `{query: {key: [B, heads, Q, N]}}`,
    where query and key are modalities or what the class adds to them.

    Attributes:
      width: feature size D of the result.
      pooling: 'attention' or 'mean' pools the tokens of each modality, and averages over those that the row has;
        'none' hands all tokens on.
      num_heads: attention heads.
      dropout_rate: dropout in every branch and on the attention weights.
      absent: what a modality that the row lacks is: 'neutral', nothing, or 'token', one learned token.
      dtype: of the arithmetic; None takes the widest of inputs and parameters.
    """

    least: ClassVar[int] = 1

    width: int
    pooling: str = 'attention'
    num_heads: int = 4
    dropout_rate: float = 0.0
    absent: str = 'neutral'
    dtype: jnp.dtype | None = None

    def embed(self, features: Mapping[str, Features], *, positions: bool = True) -> tuple[Named, Named]:
        """Returns tokens and masks {modality: `[B, N, width]`, `[B, N]`}, sorted by name; zero where masked.

        Raises:
          ValueError: too few modalities, or an unknown `pooling` or `absent`.
        """
        check_fields(self, features)
        if self.pooling not in POOLINGS:
            raise ValueError(f'{type(self).__name__}: pooling must be one of {POOLINGS}, got {self.pooling!r}.')
        anyone = jnp.any(presence({modality: features[modality].mask for modality in sorted(features)}), axis=1)
        tokens, masks = {}, {}
        for modality in sorted(features):
            x, mask = features[modality].tokens, features[modality].mask
            x = nn.Dense(self.width, dtype=self.dtype, name=f'project_{modality}')(fill_masked(x, mask))
            if positions:
                x = x + sinusoids(x.shape[1], self.width).astype(x.dtype)[None]
            if self.absent == 'token':
                absent = (anyone & ~jnp.any(mask, axis=1))[:, None] & (jnp.arange(x.shape[1]) == 0)[None]
                x = jnp.where(absent[..., None], learned_vector(self, modality, self.width, x.dtype)[None, None], x)
                mask = mask | absent
            tokens[modality], masks[modality] = fill_masked(x, mask), mask
        return tokens, masks

    def block(self, name: str) -> AttentionBlock:
        """Returns one transformer layer of a class with the field `expansion`."""
        return AttentionBlock(self.num_heads, self.expansion, self.dropout_rate, self.dtype, name=name)

    def norm(self, tokens: Array, name: str) -> Array:
        """Returns the LayerNorm behind the last layer."""
        return nn.LayerNorm(dtype=self.dtype, name=name)(tokens)

    def finish(self, tokens: Named, masks: Named) -> Features:
        """Returns all tokens, or the mean of the modalities' pooled ones as one token; see `pooling`."""
        present = presence(masks)
        if self.pooling == 'none':
            mask = side_by_side(masks)
            return Features(tokens=fill_masked(side_by_side(tokens), mask), mask=mask)
        vectors = [self.pool(name, tokens[name], masks[name]) for name in tokens]
        return one_token(masked_mean(jnp.stack(vectors, axis=1), present).astype(vectors[0].dtype), present)

    def pool(self, name: str, tokens: Array, mask: Array) -> Array:
        """Returns `[B, D]`, the real ones of `tokens` `[B, N, D]` pooled."""
        pooling = masked_mean if self.pooling == 'mean' else AttentionPooling(name=f'pool_{name}')
        return pooling(tokens, mask).astype(tokens.dtype)

    def record(self, weights: Array, queries: Mapping[str, int], keys: Mapping[str, int]):
        """Leaves `attention` among the intermediates: `weights` `[B, heads, Q, N]`, cut by who asks and who is asked.

        Args:
          weights: attention weights.
          queries: name -> number of its tokens, in their order.
          keys: the same of the context.
        """
        # Nothing is cut that nobody asked for: it would be traced and compiled.
        if self.is_mutable_collection('intermediates'):
            rows = cut(jax.lax.stop_gradient(weights), queries, axis=2)
            self.sow('intermediates', 'attention', {query: cut(row, keys, axis=3) for query, row in rows.items()})


def presence(masks: Mapping[str, Array]) -> Array:
    """Returns which modalities have a real token, `[B, M]`."""
    return jnp.stack([jnp.any(mask, axis=1) for mask in masks.values()], axis=1)


def side_by_side(arrays: Mapping[str, Array]) -> Array:
    """Returns tokens or masks `[B, N, ...]` as one array of all."""
    return jnp.concatenate([*arrays.values()], axis=1)


def lengths(tokens: Mapping[str, Array]) -> dict[str, int]:
    """Returns the number of tokens of each name."""
    return {name: array.shape[1] for name, array in tokens.items()}


def cut(array: Array, sizes: Mapping[str, int], axis: int = 1) -> Named:
    """Returns the parts of `array` along `axis` by name, the inverse of `side_by_side`."""
    ends = list(itertools.accumulate(sizes.values()))
    return dict(zip(sizes, jnp.split(array, ends[:-1], axis=axis), strict=True))
