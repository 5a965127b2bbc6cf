"""What the names of original libraries have in common: what stands before them, and weight and bias of a layer."""

from collections.abc import Iterable
from pathlib import Path

from mmtl_jax.pretrained.names import CONV, DENSE, SAME, Entry, heads_in, heads_out

HEADS_IN = ('query', 'key', 'value')


def prefix_of(path: str | Path, names: Iterable[str], stem: str, architecture: str) -> str:
    """Returns what stands before every name, such as 'bert.' in a model with a head.

    Raises:
      ValueError: no name ends with `stem`, the array by which the architecture is known.
    """
    for name in names:
        if name == stem or name.endswith(f'.{stem}'):
            return name.removesuffix(stem)
    raise ValueError(f'{path} holds no {architecture}: there is no {stem} in it.')


def layer_entries(
    original: str, path: str, num_heads: int = 1, *, bias: bool = True, norm: tuple[str, str] = ('weight', 'bias')
) -> list[Entry]:
    """Returns where weight and bias of a layer go; the last word of `path` tells what kind of layer it is.

    Args:
      original: its name.
      path: its place in the tree: a norm, the `query`, `key`, `value` or `out` of an attention, a convolution, whose
        name begins with 'conv' or is 'patch_embedding', or else a dense layer.
      num_heads: of the attention.
      bias: whether it has one.
      norm: what scale and bias of a norm are called.
    """
    name = path.rsplit('/', 1)[-1]
    if name.endswith('norm'):
        return [Entry(f'{original}.{norm[0]}', f'{path}/scale'), Entry(f'{original}.{norm[1]}', f'{path}/bias')]
    kernel, offset = DENSE, SAME
    if name in HEADS_IN:
        kernel = offset = heads_in(num_heads)
    elif name == 'out':
        kernel = heads_out(num_heads)
    elif name.startswith('conv') or name == 'patch_embedding':
        kernel = CONV
    entries = [Entry(f'{original}.weight', f'{path}/kernel', kernel), Entry(f'{original}.bias', f'{path}/bias', offset)]
    return entries if bias else entries[:1]
