"""A tiny BERT as it is published: names and layouts of `transformers`, and a forward pass in plain numpy."""

import json
import math
import pathlib

import numpy as np

from mmtl_jax.pretrained import write_weights

CONFIG = {
    'model_type': 'bert',
    'vocab_size': 23,
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'num_attention_heads': 3,
    'intermediate_size': 20,
    'max_position_embeddings': 9,
    'type_vocab_size': 2,
    'layer_norm_eps': 1e-12,
    'hidden_act': 'gelu',
}
DISTILLED = {
    'model_type': 'distilbert',
    'vocab_size': 23,
    'dim': 12,
    'n_layers': 2,
    'n_heads': 3,
    'hidden_dim': 20,
    'max_position_embeddings': 9,
    'activation': 'gelu',
}
# The names of BERT's layers, and the same in DistilBERT.
DISTILLED_NAMES = {
    'encoder.layer': 'transformer.layer',
    'attention.self.query': 'attention.q_lin',
    'attention.self.key': 'attention.k_lin',
    'attention.self.value': 'attention.v_lin',
    'attention.output.dense': 'attention.out_lin',
    'attention.output.LayerNorm': 'sa_layer_norm',
    'intermediate.dense': 'ffn.lin1',
    'output.dense': 'ffn.lin2',
    'output.LayerNorm': 'output_layer_norm',
}
IDS = np.array([[2, 7, 11, 5, 22, 3], [2, 9, 3, 0, 0, 0], [2, 4, 18, 3, 0, 0]], np.int32)
MASK = IDS > 0


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random weights of `CONFIG` under BERT's names, the pooler included."""
    generator = np.random.default_rng(seed)
    width, hidden = CONFIG['hidden_size'], CONFIG['intermediate_size']
    tables = {'word': CONFIG['vocab_size'], 'position': CONFIG['max_position_embeddings'], 'token_type': 2}
    shapes = {f'embeddings.{name}_embeddings.weight': (size, width) for name, size in tables.items()}
    norms = ['embeddings.LayerNorm']
    dense = {'pooler.dense': (width, width)}
    for i in range(CONFIG['num_hidden_layers']):
        layer = f'encoder.layer.{i}'
        norms += [f'{layer}.attention.output.LayerNorm', f'{layer}.output.LayerNorm']
        dense |= {f'{layer}.attention.self.{part}': (width, width) for part in ('query', 'key', 'value')}
        dense[f'{layer}.attention.output.dense'] = (width, width)
        dense[f'{layer}.intermediate.dense'] = (hidden, width)
        dense[f'{layer}.output.dense'] = (width, hidden)
    shapes |= {f'{name}.weight': shape for name, shape in dense.items()}
    shapes |= {f'{name}.bias': shape[:1] for name, shape in dense.items()}
    shapes |= {f'{name}.{part}': (width,) for name in norms for part in ('weight', 'bias')}
    return {name: generator.normal(size=shape, scale=0.5).astype(np.float32) for name, shape in shapes.items()}


def distilled(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays that DistilBERT has, under its names."""
    renamed = {}
    for name, array in arrays.items():
        if 'token_type' in name or 'pooler' in name:
            continue
        for old, new in DISTILLED_NAMES.items():
            if not name.startswith('embeddings'):
                name = name.replace(old, new)
        renamed[name] = array
    return renamed


def write_folder(folder: pathlib.Path, arrays: dict[str, np.ndarray], config: dict = CONFIG) -> pathlib.Path:
    """Returns the folder, laid out as on a model hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    write_weights(folder / 'model.safetensors', arrays)
    return folder


def hidden_states(arrays: dict[str, np.ndarray], ids: np.ndarray, types: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns the embeddings and the output of each layer for one text `[L]` without padding, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    heads = CONFIG['num_attention_heads']
    erf = np.vectorize(math.erf)

    def dense(x, name):
        return x @ arrays[f'{name}.weight'].T + arrays[f'{name}.bias']

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG['layer_norm_eps'])
        return x * arrays[f'{name}.weight'] + arrays[f'{name}.bias']

    x = arrays['embeddings.word_embeddings.weight'][ids] + arrays['embeddings.position_embeddings.weight'][: len(ids)]
    if 'embeddings.token_type_embeddings.weight' in arrays:
        x = x + arrays['embeddings.token_type_embeddings.weight'][np.zeros_like(ids) if types is None else types]
    states = [norm(x, 'embeddings.LayerNorm')]
    for i in range(CONFIG['num_hidden_layers']):
        x, layer = states[-1], f'encoder.layer.{i}'
        query, key, value = (
            dense(x, f'{layer}.attention.self.{part}').reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ('query', 'key', 'value')
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (scores / scores.sum(-1, keepdims=True)) @ value
        attended = dense(attended.swapaxes(0, 1).reshape(len(ids), -1), f'{layer}.attention.output.dense')
        x = norm(x + attended, f'{layer}.attention.output.LayerNorm')
        hidden = dense(x, f'{layer}.intermediate.dense')
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        states.append(norm(x + dense(hidden, f'{layer}.output.dense'), f'{layer}.output.LayerNorm'))
    return states
