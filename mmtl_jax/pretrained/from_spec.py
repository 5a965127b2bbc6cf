"""From a config's entry for an encoder to the module and the weights that it begins with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmtl_jax import encoders
from mmtl_jax.core.build import build
from mmtl_jax.core.types import PyTree
from mmtl_jax.pretrained.by_name import load
from mmtl_jax.pretrained.content import content_hash

PRETRAINED = 'pretrained'


@dataclasses.dataclass(frozen=True)
class StartingEncoder:
    """An encoder, and what it begins with.

    Attributes:
      module: the encoder.
      variables: collection -> what is published, `params` and perhaps `batch_stats`; {} for an encoder from scratch.
      record: what a saved run needs to build the encoder again without the weights, JSON-able; {} from scratch.
    """

    module: nn.Module
    variables: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def encoder_from_spec(spec: str | Mapping[str, Any], record: Mapping[str, Any] | None = None) -> StartingEncoder:
    """Builds the encoder that `spec` describes.

    Args:
      spec: a name, or a mapping with `name`, fields, and `pretrained` for a path of weights.
      record: of a saved run, whose checkpoint holds the parameters; the weights are not read then.

    Raises:
      ValueError: an unknown name or field, or weights that do not fit.
    """
    if not isinstance(spec, Mapping) or spec.get(PRETRAINED) is None:
        return StartingEncoder(build(spec, encoders))
    if record:
        return StartingEncoder(build(_hashable(record['encoder']), encoders), record=record)
    arguments = dict(spec)
    name, path = arguments.pop('name', None), arguments.pop(PRETRAINED)
    tower = load(name, path, **arguments)
    fields = {field.name: getattr(tower.encoder, field.name) for field in dataclasses.fields(tower.encoder)}
    described = {'name': name} | {key: value for key, value in fields.items() if key not in ('parent', 'name')}
    return StartingEncoder(tower.encoder, tower.variables, {'encoder': described, 'weights': content_hash(path)})


def _hashable(value: Any) -> Any:
    """Returns a value that was written as JSON with tuples for lists, as modules want it."""
    if isinstance(value, Mapping):
        return {key: _hashable(item) for key, item in value.items()}
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
