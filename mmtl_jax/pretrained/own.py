"""Encoders that this library trained: written to safetensors, and read like published ones."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from mmtl_jax import encoders
from mmtl_jax.core.build import build
from mmtl_jax.core.files import write_json_atomic
from mmtl_jax.core.tree import flatten_with_paths
from mmtl_jax.core.types import Array, PyTree, Ragged
from mmtl_jax.pretrained.locate import locate
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.tower import Tower, make_tower
from mmtl_jax.pretrained.weights import SAFETENSORS, read_config, write_weights

MODEL_TYPE = 'mmtl_jax'
CONFIG = 'config.json'


def export_encoder(
    folder: str | Path, encoder: nn.Module, variables: Mapping[str, PyTree], example: Any, **more: Any
) -> None:
    """Writes an encoder to `model.safetensors`, names as in the tree of parameters, and `config.json`.

    `load(<class of the encoder>, folder)` reads it, and a config begins with it by `'pretrained': folder`.

    Args:
      folder: where the files go.
      encoder: the module, of this library's public list or importable by its dotted path.
      variables: its `params`, and `batch_stats` if it has them.
      example: an input, an array or `Ragged`; shapes and types suffice.
      **more: what `config.json` says beside, such as the transforms that lead to its input.
    """
    tree = {**variables['params'], **({'batch_stats': variables['batch_stats']} if 'batch_stats' in variables else {})}
    table = own_names(tree)
    write_weights(Path(folder) / SAFETENSORS, table.to_original(tree))
    config = {'model_type': MODEL_TYPE, 'encoder': describe(encoder), 'example': _describe_example(example), **more}
    write_json_atomic(Path(folder) / CONFIG, config)


def is_own(path: str | Path) -> bool:
    """Returns whether `export_encoder` wrote what is at `path`."""
    place = locate(path)
    config = (place if place.is_dir() else place.parent) / CONFIG
    return config.is_file() and read_config(place).get('model_type') == MODEL_TYPE


def own(
    path: str | Path,
    *,
    name: str | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    **fields: Any,
) -> Tower:
    """Returns an encoder that `export_encoder` wrote.

    Args:
      path: its folder.
      name: the class that it should be of; None for whatever it is.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found are drawn.
      **fields: fields of the encoder that are to be others than they were, such as `dropout_rate`.

    Raises:
      ValueError: the folder holds another model, or weights that do not fit.
    """
    config = read_config(path)
    if config.get('model_type') != MODEL_TYPE:
        raise ValueError(
            f'{path} is a model of type {config.get("model_type")!r}, not written by this library; name its encoder.'
        )
    if name not in (None, config['encoder']['name']):
        raise ValueError(f'{path} holds the encoder {config["encoder"]["name"]!r}, not {name!r}; name that.')
    encoder = rebuild(config['encoder'] | fields)
    example = _example(config['example'])
    shapes = jax.eval_shape(lambda inputs: encoder.init(jax.random.key(0), inputs, train=False), example)
    table = own_names({**shapes['params'], **{name: shapes[name] for name in ('batch_stats',) if name in shapes}})
    return make_tower(encoder, example, table, path, config=config, strict=strict, ignore=ignore, key=key)


def own_names(tree: PyTree) -> NameTable:
    """Returns the table in which each parameter is called by its path, with points."""
    return NameTable(tuple(Entry(path.replace('/', '.'), path) for path in flatten_with_paths(tree)))


def describe(encoder: nn.Module) -> dict[str, Any]:
    """Returns the spec of an encoder, JSON-able, from which `rebuild` makes it again."""
    name = type(encoder).__name__
    name = name if name in encoders.__all__ else f'{type(encoder).__module__}.{name}'
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    return {'name': name} | {key: value for key, value in fields.items() if key not in ('parent', 'name')}


def rebuild(spec: Mapping[str, Any]) -> nn.Module:
    """Returns the encoder of a spec that went through JSON, where tuples have become lists."""
    return build(_with_tuples(spec), encoders)


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value


def _describe_example(example: Any) -> dict[str, Any]:
    values = example.values if isinstance(example, Ragged) else example
    return {'shape': values.shape, 'dtype': values.dtype.name, 'ragged': isinstance(example, Ragged)}


def _example(described: Mapping[str, Any]) -> Any:
    values = jax.ShapeDtypeStruct(tuple(described['shape']), described['dtype'])
    return Ragged(values, jax.ShapeDtypeStruct(values.shape[:2], bool)) if described['ragged'] else values
