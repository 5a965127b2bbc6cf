"""A pretrained encoder: the module, its parameters, and the way back to the original file."""

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmtl_jax.core.files import write_json_atomic
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import Array, PyTree
from mmtl_jax.pretrained.cache import convert, open_weights
from mmtl_jax.pretrained.locate import COMPANIONS
from mmtl_jax.pretrained.names import NameTable, Report, unflatten
from mmtl_jax.pretrained.weights import SAFETENSORS, weights_file, write_weights


@dataclasses.dataclass(frozen=True)
class Tower:
    """What a converter returns.

    Attributes:
      encoder: the linen module.
      params: its parameters, float32 numpy arrays: `encoder.apply({'params': params}, inputs, train=False)`.
      names: the table that leads from the original names to `params` and back; running statistics stand there below
        `batch_stats`.
      report: what became of every name.
      unused: the original arrays that the encoder has no place for; an export holds them again.
      config: the original `config.json`.
      source: the file that was read.
      batch_stats: running statistics of the encoder's BatchNorm layers, empty where there are none.
    """

    encoder: nn.Module
    params: PyTree
    names: NameTable
    report: Report
    unused: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    source: Path
    batch_stats: PyTree = dataclasses.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `encoder.apply` takes: the parameters, and the running statistics if there are any."""
        return {'params': self.params, **({'batch_stats': self.batch_stats} if self.batch_stats else {})}

    def export(self, path: str | Path, params: PyTree | None = None, batch_stats: PyTree | None = None) -> None:
        """Writes parameters under their original names and in their original layout.

        Args:
          path: a `.safetensors` file, or a folder, which gets `model.safetensors`, `config.json` and the files of the
            tokenizer and of the preprocessing, so that the original library loads it.
          params: what to write instead of `self.params`: the same tree after training.
          batch_stats: the same for `self.batch_stats`.

        Raises:
          ValueError: `params` is the tree of another module.
        """
        tree = dict(self.params if params is None else params)
        if self.batch_stats:
            tree['batch_stats'] = self.batch_stats if batch_stats is None else batch_stats
        path, weights = Path(path), self.names.to_original(tree)
        if path.suffix == '.safetensors':
            write_weights(path, {**weights, **self.unused})
            return
        write_weights(path / SAFETENSORS, {**weights, **self.unused})
        if self.config:
            write_json_atomic(path / 'config.json', self.config)
        for name in COMPANIONS:
            if (self.source.parent / name).is_file() and self.source.parent.resolve() != path.resolve():
                shutil.copyfile(self.source.parent / name, path / name)


def make_tower(
    encoder: nn.Module,
    example: Any,
    names: NameTable,
    path: str | Path,
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
) -> Tower:
    """Returns the encoder with the weights of `path`.

    Args:
      encoder: the module that the weights belong to.
      example: an input of it, of any batch size; shapes suffice.
      names: where each original array goes.
      path: file or folder of weights, as `read_weights` takes it.
      weights: what `open_weights(path)` or `read_weights(path)` returned, if the caller has asked already.
      config: the original configuration, for an export.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names (`fnmatch`) that may be missing, unexpected or of another shape.
      key: from which parameters that were not found are drawn; `jax.random.key(0)` by default.

    Raises:
      ValueError: the weights do not fit and `strict` is True.
    """
    source = weights_file(path)
    weights = open_weights(source) if weights is None else weights
    ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    expected = _one_tree(jax.eval_shape(lambda inputs: encoder.init(jax.random.key(0), inputs, train=False), example))
    found, report, unused = convert(weights, names, expected, ignore)
    if strict and report.problems():
        raise ValueError(
            f'{source} does not fit {type(encoder).__name__}: {report.problems()}; give the weights of this '
            f'architecture, or load what fits by strict=False or ignore=[patterns of names].'
        )
    if len(found) < len(jax.tree.leaves(expected)):
        key = jax.random.key(0) if key is None else key
        drawn = jax.jit(lambda key: encoder.init(key, _zeros(example), train=False))(key)
        found = {path: np.asarray(leaf) for path, leaf in flatten_with_paths(_one_tree(drawn)).items()} | found
    params = unflatten(found)
    batch_stats = params.pop('batch_stats', {})
    return Tower(encoder, params, names, report, unused, dict(config or {}), source, batch_stats)


def make_projected_tower(encoder: nn.Module, example: Any, names: NameTable, path: str | Path, **options: Any) -> Tower:
    """Returns what `make_tower` does, for an encoder whose field `width` is the size of a projection on top.

    The table leads to the parameters that the encoder has with `width=None`; those of the projection are drawn.
    """
    tower = make_tower(encoder.clone(width=None), example, names, path, **options)
    if encoder.width is None:
        return tower
    key = jax.random.key(0) if options.get('key') is None else options['key']

    def draw(key: Array) -> PyTree:
        params = encoder.init(key, _zeros(example), train=False)['params']
        # The compiler drops what is not asked for.
        return {name: leaf for name, leaf in params.items() if name not in tower.params}

    params = dict(tower.params) | jax.tree.map(np.asarray, jax.jit(draw)(key))
    return dataclasses.replace(tower, encoder=encoder, params=params)


def _zeros(example: Any) -> Any:
    """Returns zeros of the shapes and types of `example`."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), example)


def _one_tree(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Returns the parameters, with the running statistics below `batch_stats` where there are any."""
    return {**variables['params'], **{name: variables[name] for name in ('batch_stats',) if name in variables}}
