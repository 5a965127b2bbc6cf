"""Tasks that find in one modality what belongs to an example of another."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmtl_jax import heads, losses, metrics
from mmtl_jax.core.types import PyTree
from mmtl_jax.tasks.base import Scorer, Task, choice, primary_metric


def contrastive(
    task: str,
    *,
    modalities: Sequence[str],
    width: int = 128,
    hidden: Sequence[int] = (),
    dropout_rate: float = 0.0,
    kind: str = 'clip',
    init_temperature: float | None = None,
    init_bias: float = -10.0,
    primary: str = 'r5',
) -> Task:
    """Returns a retrieval task; targets `{'group': [B] int}` and optionally {modality: `[B]` int identity}.

    Rows of one group are positives of each other; an identity says which item of a modality a row shows, so that the
    scorer counts each once.

    Args:
      task: its name.
      modalities: at least two; every pair is compared, in both directions.
      width: size of the common space.
      hidden: sizes of the head's hidden layers, applied to every token.
      dropout_rate: in the head.
      kind: of the loss: 'clip' or 'siglip'.
      init_temperature: at the start; None for .07 (CLIP) or .1 (SigLIP), as in the papers.
      init_bias: at the start, for SigLIP.
      primary: 'r1', 'r5' or 'r10', the means over the directions, or one direction, such as 'image_to_text_r5'.
    """
    reads = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if len(set(reads)) < 2 or len(set(reads)) != len(reads) or 'group' in reads:
        raise ValueError(f"task {task!r}: needs two or more different modalities, none called 'group', got {reads}.")
    loss = choice(task, 'kind', kind, {'clip': losses.clip, 'siglip': losses.siglip})
    temperature = init_temperature if init_temperature is not None else {'clip': 0.07, 'siglip': 0.1}[kind]
    if temperature <= 0:
        raise ValueError(f'task {task!r}: init_temperature must be above 0, got {temperature}.')

    def reduce(predictions: PyTree) -> PyTree:
        return {'embeddings': predictions['embeddings'], 'valid': predictions['valid']}

    def score(outputs: list[PyTree], targets: list[PyTree]) -> dict[str, float]:
        if not targets:
            return {}
        rows = jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)
        labels = jax.tree.map(lambda *leaves: np.stack(leaves), *targets)
        identity = {modality: labels[modality] for modality in reads if modality in labels}
        return metrics.retrieval(rows['embeddings'], rows['valid'], labels['group'], identity)

    directions = [f'{asking}_to_{asked}_' for asking in reads for asked in reads if asking != asked]
    return Task(
        name=task,
        head=heads.Contrastive(
            width, reads, temperature, init_bias if kind == 'siglip' else None, tuple(hidden), dropout_rate
        ),
        loss=lambda predictions, targets: loss(predictions, targets['group']),
        metrics=lambda predictions, targets, weights: {
            'scale': metrics.weighted(jnp.broadcast_to(predictions['scale'], weights.shape), weights)
        },
        scorer=Scorer(reduce, score),
        **primary_metric(task, primary, [f'{where}r{k}' for where in ['', *directions] for k in metrics.KS]),
        reads=reads,
    )
