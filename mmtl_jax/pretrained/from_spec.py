"""From a config's entry for an encoder to the module and the weights that it begins with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmtl_jax import encoders
from mmtl_jax.core.build import build, check_arguments
from mmtl_jax.core.types import PyTree
from mmtl_jax.encoders.lora import BASE, FROZEN
from mmtl_jax.pretrained.by_name import load
from mmtl_jax.pretrained.content import content_hash
from mmtl_jax.pretrained.own import describe, rebuild

PRETRAINED, ADAPTERS = 'pretrained', 'lora'


@dataclasses.dataclass(frozen=True)
class StartingEncoder:
    """An encoder, and what it begins with.

    Attributes:
      module: the encoder.
      variables: collection -> what is published, `params` and perhaps `batch_stats`; {} for an encoder from scratch.
      frozen: expression of the parameters, below the encoder's own, that the training is to leave alone; None for none.
      record: what a saved run needs to build the encoder again without the weights, JSON-able; {} from scratch.
    """

    module: nn.Module
    variables: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    frozen: str | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def encoder_from_spec(spec: str | Mapping[str, Any], record: Mapping[str, Any] | None = None) -> StartingEncoder:
    """Builds the encoder that `spec` describes.

    Args:
      spec: a name, or a mapping with `name`, fields, `pretrained` for a path of weights (None for none), and `lora` for
        the fields of `encoders.LoRA` where these are to be adapted rather than trained.
      record: of a saved run, whose checkpoint holds the parameters; the weights are not read then.

    Raises:
      ValueError: an unknown name or field, weights that do not fit, or adapters of an encoder without weights.
    """
    if not isinstance(spec, Mapping) or spec.get(PRETRAINED) is None:
        if isinstance(spec, Mapping) and ADAPTERS in spec:
            raise ValueError(
                f'the encoder {spec.get("name")!r} has {ADAPTERS!r} without {PRETRAINED!r}; adapters change weights '
                'that were trained before: name those, or leave the adapters out.'
            )
        scratch = (
            {key: value for key, value in spec.items() if key != PRETRAINED} if isinstance(spec, Mapping) else spec
        )
        return StartingEncoder(build(scratch, encoders))
    arguments = dict(spec)
    adapters, path = arguments.pop(ADAPTERS, None), arguments.pop(PRETRAINED)
    if record:
        start = StartingEncoder(rebuild(record['encoder']), record=record)
    else:
        tower = load(arguments.pop('name', None), path, **arguments)
        record = {'encoder': describe(tower.encoder), 'weights': content_hash(path)}
        start = StartingEncoder(tower.encoder, tower.variables, record=record)
    return start if adapters is None else _adapted(start, adapters)


def _adapted(start: StartingEncoder, adapters: Mapping[str, Any]) -> StartingEncoder:
    """Returns the encoder with low-rank adapters beside its weights."""
    check_arguments('LoRA', encoders.LoRA, {'encoder': start.module, **adapters})
    variables = {collection: {BASE: values} for collection, values in start.variables.items()}
    return StartingEncoder(encoders.LoRA(start.module, **adapters), variables, FROZEN, start.record)
