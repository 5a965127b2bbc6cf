"""Tiny wav2vec 2.0 and Whisper as they are published: names and layouts of `transformers`, and plain numpy."""

import json
import math
import pathlib

import numpy as np

from mmtl_jax.core.types import Ragged
from mmtl_jax.pretrained import write_weights

WAV2VEC2 = {
    'model_type': 'wav2vec2',
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'num_attention_heads': 3,
    'intermediate_size': 20,
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-5,
    'conv_dim': [6, 8],
    'conv_kernel': [10, 4],
    'conv_stride': [5, 4],
    'conv_bias': False,
    'feat_extract_norm': 'group',
    'feat_extract_activation': 'gelu',
    'num_conv_pos_embeddings': 6,
    'num_conv_pos_embedding_groups': 3,
    'do_stable_layer_norm': False,
}
XLSR = {
    **WAV2VEC2,
    'conv_bias': True,
    'feat_extract_norm': 'layer',
    'num_conv_pos_embeddings': 5,
    'do_stable_layer_norm': True,
}
WHISPER = {
    'model_type': 'whisper',
    'd_model': 12,
    'encoder_layers': 2,
    'encoder_attention_heads': 3,
    'encoder_ffn_dim': 20,
    'num_mel_bins': 5,
    'max_source_positions': 6,
    'activation_function': 'gelu',
}
WIDTH, HEADS, HIDDEN = 12, 3, 20
DENSE = {
    'wav2vec2': {
        **{f'attention.{part}_proj': (WIDTH, WIDTH) for part in ('q', 'k', 'v', 'out')},
        'feed_forward.intermediate_dense': (HIDDEN, WIDTH),
        'feed_forward.output_dense': (WIDTH, HIDDEN),
    },
    'whisper': {
        **{f'self_attn.{part}_proj': (WIDTH, WIDTH) for part in ('q', 'k', 'v', 'out')},
        'fc1': (HIDDEN, WIDTH),
        'fc2': (WIDTH, HIDDEN),
    },
}
NORMS = {'wav2vec2': ('layer_norm', 'final_layer_norm'), 'whisper': ('self_attn_layer_norm', 'final_layer_norm')}
# The first clip fills the batch, the last one has one token.
SAMPLES, FRAMES = (200, 130, 25), (12, 7, 1)


def waveforms() -> Ragged:
    """Returns three clips `[3, 200]`, zero beyond their ends."""
    mask = np.arange(max(SAMPLES))[None] < np.array(SAMPLES)[:, None]
    values = np.random.default_rng(1).normal(size=mask.shape).astype(np.float32)
    return Ragged(np.where(mask, values, np.float32(0)), mask)


def log_mels() -> Ragged:
    """Returns three clips `[3, 12, 5]`, zero beyond their ends."""
    mask = np.arange(max(FRAMES))[None] < np.array(FRAMES)[:, None]
    values = np.random.default_rng(1).normal(size=(*mask.shape, WHISPER['num_mel_bins'])).astype(np.float32)
    return Ragged(np.where(mask[..., None], values, np.float32(0)), mask)


def weights(config: dict, prefix: str = '') -> dict[str, np.ndarray]:
    """Returns random weights of `config` under the names of `transformers`, with arrays that the encoder lacks."""
    shapes = _wav2vec2_shapes(config) if config['model_type'] == 'wav2vec2' else _whisper_shapes(config)
    generator = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        array = generator.normal(size=shape, scale=0.4)
        arrays[prefix + name] = (array + (len(shape) == 1 and name.endswith('weight'))).astype(np.float32)
    head = {'wav2vec2': 'lm_head.weight', 'whisper': 'proj_out.weight'}[config['model_type']]
    return arrays | {head: generator.normal(size=(3, WIDTH)).astype(np.float32)}


def _layer_shapes(kind: str, layer: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, shape in DENSE[kind].items():
        shapes[f'{layer}.{name}.weight'] = shape
        if kind == 'wav2vec2' or 'k_proj' not in name:
            shapes[f'{layer}.{name}.bias'] = shape[:1]
    return shapes | {f'{layer}.{name}.{part}': (WIDTH,) for name in NORMS[kind] for part in ('weight', 'bias')}


def _wav2vec2_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    shapes, channels = {'masked_spec_embed': (WIDTH,)}, 1
    for index, (width, kernel) in enumerate(zip(config['conv_dim'], config['conv_kernel'], strict=True)):
        layer = f'feature_extractor.conv_layers.{index}'
        shapes[f'{layer}.conv.weight'] = (width, channels, kernel)
        if config['conv_bias']:
            shapes[f'{layer}.conv.bias'] = (width,)
        if config['feat_extract_norm'] == 'layer' or index == 0:
            shapes |= {f'{layer}.layer_norm.{part}': (width,) for part in ('weight', 'bias')}
        channels = width
    window, groups = config['num_conv_pos_embeddings'], config['num_conv_pos_embedding_groups']
    shapes |= {f'feature_projection.layer_norm.{part}': (channels,) for part in ('weight', 'bias')}
    shapes |= {f'encoder.layer_norm.{part}': (WIDTH,) for part in ('weight', 'bias')}
    shapes |= {
        'feature_projection.projection.weight': (WIDTH, channels),
        'feature_projection.projection.bias': (WIDTH,),
    }
    positions = 'encoder.pos_conv_embed.conv'
    shapes |= {f'{positions}.bias': (WIDTH,), f'{positions}.parametrizations.weight.original0': (1, 1, window)}
    shapes[f'{positions}.parametrizations.weight.original1'] = (WIDTH, WIDTH // groups, window)
    for index in range(config['num_hidden_layers']):
        shapes |= _layer_shapes('wav2vec2', f'encoder.layers.{index}')
    return shapes


def _whisper_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    shapes = {
        'encoder.conv1.weight': (WIDTH, config['num_mel_bins'], 3),
        'encoder.conv2.weight': (WIDTH, WIDTH, 3),
        'encoder.embed_positions.weight': (config['max_source_positions'], WIDTH),
        'decoder.embed_tokens.weight': (7, WIDTH),
    }
    for name in ('conv1.bias', 'conv2.bias', 'layer_norm.weight', 'layer_norm.bias'):
        shapes[f'encoder.{name}'] = (WIDTH,)
    for index in range(config['encoder_layers']):
        shapes |= _layer_shapes('whisper', f'encoder.layers.{index}')
    return shapes


def write_folder(folder: pathlib.Path, arrays: dict[str, np.ndarray], config: dict) -> pathlib.Path:
    """Returns the folder, laid out as on a model hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    write_weights(folder / 'model.safetensors', arrays)
    return folder


class Plain:
    """The forward passes by original names, in float64, of one clip without padding."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = {name: array.astype(np.float64) for name, array in arrays.items()}

    def dense(self, x, name):
        """Returns `x W^T + b`, without `b` where there is none."""
        return x @ self.arrays[f'{name}.weight'].T + self.arrays.get(f'{name}.bias', 0)

    def norm(self, x, name, axis=-1):
        """Returns `x` with mean 0 and variance 1 along `axis`, scaled and shifted."""
        x = x - x.mean(axis, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis, keepdims=True) + 1e-5)
        return x * self.arrays[f'{name}.weight'] + self.arrays[f'{name}.bias']

    def attend(self, x, name):
        """Returns multi-head self-attention."""
        query, key, value = (
            self.dense(x, f'{name}.{part}_proj').reshape(len(x), HEADS, -1).swapaxes(0, 1) for part in 'qkv'
        )
        scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        return self.dense(mixed.swapaxes(0, 1).reshape(len(x), -1), f'{name}.out_proj')

    def wav2vec2(self, waveform, config):
        """Returns the normalised output of the convolutions, the hidden states, and the tokens."""
        x = waveform[:, None].astype(np.float64)
        for index, stride in enumerate(config['conv_stride']):
            layer = f'feature_extractor.conv_layers.{index}'
            x = convolve(x, self.arrays[f'{layer}.conv.weight'], stride) + self.arrays.get(f'{layer}.conv.bias', 0)
            if config['feat_extract_norm'] == 'layer':
                x = self.norm(x, f'{layer}.layer_norm')
            elif index == 0:
                x = self.norm(x, f'{layer}.layer_norm', axis=0)
            x = gelu(x)
        features = self.norm(x, 'feature_projection.layer_norm')
        x = self.dense(features, 'feature_projection.projection')
        x = x + self.positions(x, config['num_conv_pos_embedding_groups'])
        first = config['do_stable_layer_norm']
        states = [x if first else self.norm(x, 'encoder.layer_norm')]
        for index in range(config['num_hidden_layers']):
            x, layer = states[-1], f'encoder.layers.{index}'

            def feed_forward(x, layer=layer):
                hidden = gelu(self.dense(x, f'{layer}.feed_forward.intermediate_dense'))
                return self.dense(hidden, f'{layer}.feed_forward.output_dense')

            if first:
                x = x + self.attend(self.norm(x, f'{layer}.layer_norm'), f'{layer}.attention')
                states.append(x + feed_forward(self.norm(x, f'{layer}.final_layer_norm')))
            else:
                x = self.norm(x + self.attend(x, f'{layer}.attention'), f'{layer}.layer_norm')
                states.append(self.norm(x + feed_forward(x), f'{layer}.final_layer_norm'))
        return features, states, self.norm(states[-1], 'encoder.layer_norm') if first else states[-1]

    def positions(self, x, groups):
        """Returns the grouped convolution with a kernel whose taps are normalised."""
        name = 'encoder.pos_conv_embed.conv'
        scale, kernel = (self.arrays[f'{name}.parametrizations.weight.original{i}'] for i in (0, 1))
        kernel = scale * kernel / np.sqrt((kernel**2).sum((0, 1), keepdims=True))
        size = kernel.shape[-1]
        x = np.pad(x, ((size // 2, size // 2), (0, 0)))
        parts = zip(np.split(x, groups, axis=1), np.split(kernel, groups), strict=True)
        x = np.concatenate([convolve(part, taps) for part, taps in parts], axis=1)
        # An even kernel has one output too many.
        return gelu((x if size % 2 else x[:-1]) + self.arrays[f'{name}.bias'])

    def whisper(self, frames, config):
        """Returns the hidden states and the tokens."""
        x = frames.astype(np.float64)
        for name, stride in (('encoder.conv1', 1), ('encoder.conv2', 2)):
            x = convolve(np.pad(x, ((1, 1), (0, 0))), self.arrays[f'{name}.weight'], stride)
            x = gelu(x + self.arrays[f'{name}.bias'])
        states = [x + self.arrays['encoder.embed_positions.weight'][: len(x)]]
        for index in range(config['encoder_layers']):
            x, layer = states[-1], f'encoder.layers.{index}'
            x = x + self.attend(self.norm(x, f'{layer}.self_attn_layer_norm'), f'{layer}.self_attn')
            hidden = gelu(self.dense(self.norm(x, f'{layer}.final_layer_norm'), f'{layer}.fc1'))
            states.append(x + self.dense(hidden, f'{layer}.fc2'))
        return states, self.norm(states[-1], 'encoder.layer_norm')


def convolve(x, kernel, stride=1):
    """Returns `[n, out]` for `x` `[T, in]` and a kernel `[out, in, window]`, whole windows only."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[-1], axis=0)[::stride]
    return np.einsum('nik,oik->no', windows, kernel)


def gelu(x):
    """Returns the exact GELU."""
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
