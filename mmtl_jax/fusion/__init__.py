"""Floor 2: fusions, `{modality: Features}` to Features.

A fusion is a linen module `(features, *, train) -> Features` with a field `width`. It takes any number of modalities
and any missing subset: an absent modality is an all-False row of its mask.
"""

from mmtl_jax.fusion.simple import Concat, Mean, Sum, Weighted

__all__ = ['Concat', 'Mean', 'Sum', 'Weighted']
