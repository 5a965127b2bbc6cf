"""The layers of mmtl_jax.nn written plainly: numpy in double precision, one row `[N, D]` without padding."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Parameters = Mapping[str, Any]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def gelu(x):
    # The form with tanh, as linen has it.
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def dense(p: Parameters, x):
    return x @ p['kernel'] + p['bias']


def layer_norm(p: Parameters, x):
    return p['scale'] * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) + p['bias']


def feed_forward(p: Parameters, x):
    return dense(p['Dense_1'], swish(dense(p['Dense_0'], x)))


def rotate(x):
    """Turns the complex number of channels i and i + D / 2 by position times 10000 ** (-2 i / D)."""
    length, half = len(x), x.shape[-1] // 2
    turns = np.exp(1j * np.arange(length)[:, None] * 10_000.0 ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * turns.reshape(length, *(1,) * (x.ndim - 2), half)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attention(p: Parameters, x, *, rotary: bool = False):
    p = p['attention']
    query, key, value = (np.einsum('nd,dhe->nhe', x, p[k]['kernel']) + p[k]['bias'] for k in ('query', 'key', 'value'))
    if rotary:
        query, key = rotate(query), rotate(key)
    weights = softmax(np.einsum('qhe,khe->hqk', query, key) / np.sqrt(query.shape[-1]))
    return np.einsum('hqk,khe,hed->qd', weights, value, p['out']['kernel']) + p['out']['bias']


def attention_to(p: Parameters, queries, context):
    """Returns softmax(Q Kᵀ / sqrt(d)) V of queries to a context, and the softmax; zero for an empty context."""
    query, value = (
        np.einsum('nd,dhe->nhe', x, p[name]['kernel']) + p[name]['bias']
        for name, x in (('query', queries), ('value', context))
    )
    if not len(context):
        return np.zeros_like(queries), np.zeros((query.shape[1], len(queries), 0))
    key = np.einsum('nd,dhe->nhe', context, p['key']['kernel'])
    weights = softmax(np.einsum('qhe,khe->hqk', query, key) / np.sqrt(query.shape[-1]))
    return np.einsum('hqk,khe,hed->qd', weights, value, p['out']['kernel']) + p['out']['bias'], weights


def attention_block(p: Parameters, x, context=None):
    """Returns what a block makes of tokens that attend to a context, or to themselves."""
    queries = layer_norm(p['norm'], x)
    context = queries if context is None else layer_norm(p['context_norm'], context)
    x = x + attention_to(p['attention'], queries, context)[0]
    return x + feed_forward(p['feed_forward'], layer_norm(p['feed_forward_norm'], x))


def rotary_attention(p: Parameters, x):
    return attention(p, x, rotary=True)


def transformer_block(p: Parameters, x):
    x = x + attention(p['SelfAttention_0'], layer_norm(p['LayerNorm_0'], x))
    return x + feed_forward(p['FeedForward_0'], layer_norm(p['LayerNorm_1'], x))


def windows(x, size: int):
    """Returns `[N, size, D]`, what a centred window of `size` sees around each position, zeros outside."""
    before = (size - 1) // 2
    padded = np.pad(x, ((before, size - 1 - before), (0, 0)))
    return np.stack([padded[position : position + size] for position in range(len(x))])


def residual_conv(p: Parameters, x):
    kernel, bias = p['Conv_0']['kernel'], p['Conv_0']['bias']
    seen = windows(layer_norm(p['LayerNorm_0'], x), len(kernel))
    return x + np.maximum(np.einsum('nkc,kcd->nd', seen, kernel) + bias, 0)


def depthwise_conv(p: Parameters, x):
    return np.einsum('nkd,kd->nd', windows(x, len(p['kernel'])), p['kernel'][:, 0]) + p['bias']


def lstm_in_one_direction(p: Parameters, x):
    """Hochreiter & Schmidhuber 1997 with forget gates: input i, forget f, candidate g, output o."""
    hidden = cell = np.zeros(p['hi']['bias'].shape)
    outputs = []
    for step in x:
        i, f, g, o = (step @ p[f'i{gate}']['kernel'] + dense(p[f'h{gate}'], hidden) for gate in 'ifgo')
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs)


def lstm(p: Parameters, x):
    return lstm_in_one_direction(p['OptimizedLSTMCell_0'], x)


def bidirectional_lstm(p: Parameters, x, *, width: int):
    backwards = lstm_in_one_direction(p['OptimizedLSTMCell_1'], x[::-1])[::-1]
    # Each half is rounded up, so an odd width drops the last channel.
    return np.concatenate([lstm(p, x), backwards], axis=-1)[:, :width]


def attention_pooling(p: Parameters, x):
    return softmax((x @ p['scores']['kernel'])[:, 0]) @ x
