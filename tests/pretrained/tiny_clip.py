"""A tiny CLIP as it is published: names and layouts of `transformers`, and both forward passes in plain numpy."""

import json
import math
import pathlib

import numpy as np

from mmtl_jax.pretrained import write_weights

TEXT = {
    'vocab_size': 23,
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'num_attention_heads': 3,
    'intermediate_size': 20,
    'max_position_embeddings': 9,
    'bos_token_id': 20,
    'eos_token_id': 21,
    'projection_dim': 7,
}
VISION = {
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 24,
    'patch_size': 8,
    'image_size': 16,
    'projection_dim': 7,
}
CONFIG = {'model_type': 'clip', 'projection_dim': 7, 'text_config': TEXT, 'vision_config': VISION}
# The end token, 21, stands twice in the first row, before an id that is higher.
IDS = np.array([[20, 7, 21, 22, 3, 21], [20, 21, 0, 0, 0, 0], [20, 4, 18, 21, 0, 0]], np.int32)
MASK = np.arange(6) < np.array([6, 2, 4])[:, None]
ENDS = {21: [2, 1, 3], 2: [3, 1, 3]}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random weights of `CONFIG`, small ones for the projections of attention."""
    generator = np.random.default_rng(seed)
    shapes = {'text_projection.weight': (7, 12), 'visual_projection.weight': (7, 16), 'logit_scale': ()}
    for part, sizes in (('text', TEXT), ('vision', VISION)):
        width, hidden, name = sizes['hidden_size'], sizes['intermediate_size'], f'{part}_model'
        norms = ['final_layer_norm'] if part == 'text' else ['pre_layrnorm', 'post_layernorm']
        dense = {}
        for i in range(sizes['num_hidden_layers']):
            layer = f'encoder.layers.{i}'
            norms += [f'{layer}.layer_norm1', f'{layer}.layer_norm2']
            dense |= {f'{layer}.self_attn.{kind}_proj': (width, width) for kind in ('q', 'k', 'v', 'out')}
            dense |= {f'{layer}.mlp.fc1': (hidden, width), f'{layer}.mlp.fc2': (width, hidden)}
        shapes |= {f'{name}.{key}.weight': shape for key, shape in dense.items()}
        shapes |= {f'{name}.{key}.bias': shape[:1] for key, shape in dense.items()}
        shapes |= {f'{name}.{key}.{leaf}': (width,) for key in norms for leaf in ('weight', 'bias')}
    shapes |= {
        'text_model.embeddings.token_embedding.weight': (23, 12),
        'text_model.embeddings.position_embedding.weight': (9, 12),
        'vision_model.embeddings.class_embedding': (16,),
        'vision_model.embeddings.patch_embedding.weight': (16, 3, 8, 8),
        'vision_model.embeddings.position_embedding.weight': (5, 16),
    }
    return {name: np.asarray(generator.normal(size=shape, scale=0.3), np.float32) for name, shape in shapes.items()}


def write_folder(folder: pathlib.Path, arrays: dict[str, np.ndarray], config: dict = CONFIG) -> pathlib.Path:
    """Returns the folder, laid out as on a model hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    write_weights(folder / 'model.safetensors', arrays)
    return folder


def text_embeddings(arrays: dict[str, np.ndarray], end_id: int = 21) -> np.ndarray:
    """Returns the embeddings `[3, 7]` of `IDS` in the shared space, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    table, places = (arrays[f'text_model.embeddings.{name}_embedding.weight'] for name in ('token', 'position'))
    rows = []
    for ids, end in zip(IDS, ENDS[end_id], strict=True):
        # Nothing sees what comes after it.
        x = _layers(arrays, 'text', TEXT, (table[ids] + places[: len(ids)])[: end + 1])
        rows.append(_norm(arrays, 'text_model.final_layer_norm', x[-1]) @ arrays['text_projection.weight'].T)
    return np.stack(rows)


def image_embeddings(arrays: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Returns the embeddings `[B, 7]` of standardised pixels `[B, 16, 16, 3]` in the shared space, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    name = 'vision_model.embeddings'
    patches = pixels.astype(np.float64).reshape(len(pixels), 2, 8, 2, 8, 3).transpose(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(len(pixels), 4, -1) @ arrays[f'{name}.patch_embedding.weight'].reshape(16, -1).T
    rows = []
    for x in patches:
        x = np.concatenate([arrays[f'{name}.class_embedding'][None], x])
        x = _norm(arrays, 'vision_model.pre_layrnorm', x + arrays[f'{name}.position_embedding.weight'])
        x = _layers(arrays, 'vision', VISION, x)[0]
        rows.append(_norm(arrays, 'vision_model.post_layernorm', x) @ arrays['visual_projection.weight'].T)
    return np.stack(rows)


def _norm(arrays: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * arrays[f'{name}.weight'] + arrays[f'{name}.bias']


def _layers(arrays: dict[str, np.ndarray], part: str, sizes: dict, x: np.ndarray) -> np.ndarray:
    """Returns what the layers make of `[N, D]`; those of texts see nothing that comes later."""
    later = np.triu(np.ones((len(x), len(x)), bool), 1) if part == 'text' else False
    for i in range(sizes['num_hidden_layers']):
        layer = f'{part}_model.encoder.layers.{i}'

        def dense(x: np.ndarray, name: str, layer: str = layer) -> np.ndarray:
            return x @ arrays[f'{layer}.{name}.weight'].T + arrays[f'{layer}.{name}.bias']

        inner = _norm(arrays, f'{layer}.layer_norm1', x)
        query, key, value = (
            dense(inner, f'self_attn.{kind}_proj').reshape(len(x), sizes['num_attention_heads'], -1).swapaxes(0, 1)
            for kind in ('q', 'k', 'v')
        )
        scores = np.where(later, -np.inf, query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        x = x + dense(mixed.swapaxes(0, 1).reshape(x.shape), 'self_attn.out_proj')
        hidden = dense(_norm(arrays, f'{layer}.layer_norm2', x), 'mlp.fc1')
        x = x + dense(hidden / (1 + np.exp(-1.702 * hidden)), 'mlp.fc2')
    return x
