"""BERT, DistilBERT and MiniLM: from the names of `transformers` to `encoders.BERT`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmtl_jax.core.build import construct
from mmtl_jax.core.types import Array, Ragged
from mmtl_jax.encoders import BERT
from mmtl_jax.pretrained.cache import open_weights
from mmtl_jax.pretrained.names import Entry, NameTable
from mmtl_jax.pretrained.originals import layer_entries
from mmtl_jax.pretrained.tower import Tower, make_tower
from mmtl_jax.pretrained.weights import read_config

# Field of `encoders.BERT` -> key of the original configuration; and what the original library takes where it is absent.
KEYS = {
    'bert': {
        'vocab_size': 'vocab_size',
        'width': 'hidden_size',
        'depth': 'num_hidden_layers',
        'num_heads': 'num_attention_heads',
        'mlp_width': 'intermediate_size',
        'max_length': 'max_position_embeddings',
        'num_types': 'type_vocab_size',
        'epsilon': 'layer_norm_eps',
        'activation': 'hidden_act',
    },
    'distilbert': {
        'vocab_size': 'vocab_size',
        'width': 'dim',
        'depth': 'n_layers',
        'num_heads': 'n_heads',
        'mlp_width': 'hidden_dim',
        'max_length': 'max_position_embeddings',
        'activation': 'activation',
    },
}
ABSENT = {'num_types': 2, 'epsilon': 1e-12, 'activation': 'gelu', 'max_length': 512}
# Original name of a layer's part, and its place in `layer_<i>`.
LAYER = {
    'bert': {
        'attention.self.query': 'attention/query',
        'attention.self.key': 'attention/key',
        'attention.self.value': 'attention/value',
        'attention.output.dense': 'attention/out',
        'attention.output.LayerNorm': 'attention_norm',
        'intermediate.dense': 'mlp_in',
        'output.dense': 'mlp_out',
        'output.LayerNorm': 'mlp_norm',
    },
    'distilbert': {
        'attention.q_lin': 'attention/query',
        'attention.k_lin': 'attention/key',
        'attention.v_lin': 'attention/value',
        'attention.out_lin': 'attention/out',
        'sa_layer_norm': 'attention_norm',
        'ffn.lin1': 'mlp_in',
        'ffn.lin2': 'mlp_out',
        'output_layer_norm': 'mlp_norm',
    },
}
WORDS = 'embeddings.word_embeddings.weight'
# The pooler and the heads of pretraining and of fine-tuned tasks, none of which belongs to the encoder.
UNUSED = ('cls.*', 'classifier.*', 'pre_classifier.*', 'qa_outputs.*', 'vocab_*')
UNUSED_INSIDE = ('pooler.*', 'embeddings.position_ids')


def bert(
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    strict: bool = True,
    ignore: Iterable[str] = (),
    key: Array | None = None,
    cache: bool | str | Path | None = None,
    **fields: Any,
) -> Tower:
    """Returns `encoders.BERT` with the weights of a BERT, DistilBERT or MiniLM.

    Args:
      path: a folder as model hubs lay it out, or a file of weights beside its `config.json`.
      config: what `config.json` would say.
      strict: whether every parameter must be found and every array known.
      ignore: patterns of original names that may be missing, unexpected or of another shape.
      key: from which parameters that were not found are drawn.
      cache: folder for what is converted from slow files, or False for none, see `open_weights`.
      **fields: fields of `encoders.BERT` beside those that the configuration tells, such as `dropout_rate`.

    Raises:
      ValueError: another architecture, weights that do not fit, or files that cannot be read.
    """
    weights = open_weights(path, cache)
    config = read_config(weights.file) if config is None else config
    encoder = _encoder(path, config, fields)
    words = [name for name in weights if name == WORDS or name.endswith(f'.{WORDS}')]
    names = bert_names(
        encoder,
        config['model_type'],
        prefix=words[0].removesuffix(WORDS) if words else '',
        old_norms=any(name.endswith('LayerNorm.gamma') for name in weights),
    )
    example = jax.ShapeDtypeStruct((1, 1), jnp.int32), jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    return make_tower(
        encoder,
        Ragged(*example),
        names,
        weights.file,
        weights=weights,
        config=config,
        strict=strict,
        ignore=ignore,
        key=key,
    )


def _encoder(path: str | Path, config: Mapping[str, Any], fields: Mapping[str, Any]) -> BERT:
    """Returns the module that an original configuration describes."""
    kind = config.get('model_type')
    if kind not in KEYS:
        raise ValueError(f'{path} is a model of type {kind!r}; pretrained.bert reads {" and ".join(KEYS)}.')
    if config.get('position_embedding_type', 'absolute') != 'absolute' or config.get('is_decoder'):
        raise ValueError(f'{path} is a decoder or has relative positions; pretrained.bert reads plain encoders.')
    arguments = {}
    for field, name in KEYS[kind].items():
        if name not in config and field not in ABSENT:
            raise ValueError(f'the configuration of {path} lacks {name!r}; get its config.json again.')
        arguments[field] = config.get(name, ABSENT.get(field))
    arguments = {'num_types': 0, **arguments, **fields}
    return construct('BERT', BERT, arguments)


def bert_names(encoder: BERT, kind: str = 'bert', *, prefix: str = '', old_norms: bool = False) -> NameTable:
    """Returns the table of names of a BERT.

    Args:
      encoder: the module.
      kind: 'bert' or 'distilbert'.
      prefix: what stands before every name, such as 'bert.' in a model with a head.
      old_norms: whether LayerNorm has a gamma and a beta, as in the first files that were published.
    """
    norm = ('gamma', 'beta') if old_norms else ('weight', 'bias')
    embeddings = {'word': WORDS, 'position': 'embeddings.position_embeddings.weight'}
    if encoder.num_types:
        embeddings['type'] = 'embeddings.token_type_embeddings.weight'
    entries = [Entry(prefix + original, f'{place}_embedding/embedding') for place, original in embeddings.items()]
    entries += layer_entries(f'{prefix}embeddings.LayerNorm', 'embedding_norm', norm=norm)
    layers = 'encoder.layer' if kind == 'bert' else 'transformer.layer'
    for index in range(encoder.depth):
        for original, place in LAYER[kind].items():
            name = f'{prefix}{layers}.{index}.{original}'
            entries += layer_entries(name, f'layer_{index}/{place}', encoder.num_heads, norm=norm)
    return NameTable(tuple(entries), unused=(*UNUSED, *(prefix + name for name in UNUSED_INSIDE)))
