"""What a fusion tells of itself while it works: how much each modality counts, and who attends to whom."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax.core.types import Array, Batch, PyTree
from mmtl_jax.model import FUSED
from mmtl_jax.nn import masked_mean
from mmtl_jax.training.modulation import MODALITIES
from mmtl_jax.training.objective import masked_sum

INTERMEDIATES = 'intermediates'


def of_fusion(sown: Mapping[str, Any], name: str) -> list[Any]:
    """Returns everything that the fusion left under `name` among the intermediates, in its order."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            if key == name:
                found.extend(value)
            else:
                visit(value)

    visit(sown.get(INTERMEDIATES, {}).get('fusion', {}))
    return found


def weight_sums(sown: Mapping[str, Any], batch: Batch) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Returns `{'modalities': {'<modality>/weight': (sum, count)}}` over the real rows, {} without weights.

    A modality that a row lacks has the weight 0 there. `Hierarchical` has weights of pairs too, such as `image+text`.
    """
    weights = [*of_fusion(sown, 'modality_weights'), *of_fusion(sown, 'node_weights')]
    real = batch.real.astype(jnp.float32)
    sums = {
        f'{modality}/weight': (masked_sum(of_rows.astype(jnp.float32), real), real.sum())
        for by_modality in weights
        for modality, of_rows in by_modality.items()
    }
    return {MODALITIES: sums} if sums else {}


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What the fusion made of a split; N rows.

    Attributes:
      rows: `[N]`, the split's row indices.
      fused: `[N, D]`, the mean of the fused tokens.
      present: modality -> `[N]` bool.
      attention: row index -> who asks -> who is asked -> `[tokens]`, for the rows that were chosen, without the
        modalities that a row lacks; see `mean_attention`. Empty for a fusion without attention.
    """

    rows: np.ndarray
    fused: np.ndarray
    present: dict[str, np.ndarray]
    attention: dict[int, dict[str, dict[str, np.ndarray]]]


def make_look(model: nn.Module) -> Callable[[dict[str, Any], Batch], tuple[Array, PyTree]]:
    """Returns the pure function `(variables, batch) -> (fused [B, D], attention of each row)`."""

    def look(variables, batch):
        z, sown = model.apply(variables, batch, train=False, method='features', mutable=[INTERMEDIATES])
        fused = masked_mean(z[FUSED].tokens.astype(jnp.float32), z[FUSED].mask)
        return fused, mean_attention(of_fusion(sown, 'attention'))

    return look


def mean_attention(blocks: Sequence[Mapping[str, Mapping[str, Array]]]) -> dict[str, dict[str, Array]]:
    """Returns who asks -> who is asked -> `[B, tokens]`: the mean over layers, heads and the tokens of who asks.

    Args:
      blocks: who asks -> who is asked -> weights `[B, heads, Q, N]`, of each layer.
    """
    found: dict[str, dict[str, list[Array]]] = {}
    for block in blocks:
        for query, by_key in block.items():
            for key, weights in by_key.items():
                mean = weights.astype(jnp.float32).mean(axis=(1, 2))
                found.setdefault(query, {}).setdefault(key, []).append(mean)
    return {
        query: {key: sum(layers) / len(layers) for key, layers in by_key.items()} for query, by_key in found.items()
    }


def inspect(
    look: Callable[[dict[str, Any], Batch], tuple[Array, PyTree]],
    variables: dict[str, Any],
    loader: Iterable[tuple[np.ndarray, Batch]],
    chosen: Collection[int],
) -> Inspected:
    """Returns what the fusion makes of everything that `loader` gives.

    Args:
      look: from `make_look`, jitted with replicated outputs.
      variables: `state.inference`.
      loader: yields row indices `[B]`, -1 for padding, and batches.
      chosen: rows whose attention is kept.
    """
    rows, fused, present, attention = [], [], [], {}
    for indices, batch in loader:
        real = np.flatnonzero((indices >= 0) & jax.device_get(batch.real))
        vectors, weights = look(variables, batch)
        rows.append(indices[real])
        fused.append(jax.device_get(vectors)[real])
        has = jax.device_get(batch.present)
        present.append({name: mask[real] for name, mask in has.items()})
        for place in real:
            if weights and int(indices[place]) in chosen:
                absent = {name for name, mask in has.items() if not mask[place]}
                attention[int(indices[place])] = {
                    query: {key: np.asarray(tokens[place]) for key, tokens in by_key.items() if key not in absent}
                    for query, by_key in weights.items()
                    if query not in absent
                }
    joined = {name: np.concatenate([part[name] for part in present]) for name in present[0]}
    return Inspected(np.concatenate(rows), np.concatenate(fused), joined, attention)
