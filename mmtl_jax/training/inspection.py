"""What a fusion tells of itself while it works: how much each modality counts, and who attends to whom."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmtl_jax.core.types import Array, Batch
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
