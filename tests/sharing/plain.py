"""The formulas of the schemes in numpy, float64: {stream: array} in and {task: {stream: array}} out."""

import numpy as np

Streams = dict[str, np.ndarray]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exp = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def norm(parameters, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * parameters['scale'] + parameters['bias']


def dense(parameters, x):
    return x @ parameters['kernel'] + parameters.get('bias', 0)


def layer(parameters, x):
    hidden = dense(parameters['MLP_0']['Dense_0'], x)
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return norm(parameters['LayerNorm_0'], gelu)


def branch(parameters, streams: Streams) -> Streams:
    return {name: layer(parameters[name], stream) for name, stream in streams.items()}


def rows(weights, stream):
    return weights.reshape(weights.shape + (1,) * (stream.ndim - 1))


def mix(weights, candidates: list[Streams]) -> Streams:
    return {
        name: sum(rows(weights[:, k], each[name]) * each[name] for k, each in enumerate(candidates))
        for name in candidates[0]
    }


def pooled(streams: Streams, mask) -> np.ndarray:
    return (streams['tokens'] * mask[..., None]).sum(axis=1) / np.maximum(mask.sum(axis=1, keepdims=True), 1)


def gate(parameters, streams: Streams, mask) -> np.ndarray:
    return softmax(dense(parameters['scores'], pooled(streams, mask)))


def mmoe(parameters, streams, mask, tasks):
    experts = [branch(parameters[f'expert_{k}'], streams) for k in range(4)]
    return {task: mix(gate(parameters[f'gate_{task}'], streams, mask), experts) for task in tasks}


def ple(parameters, streams, mask, tasks):
    everyone = (*tasks, 'shared')
    inputs = dict.fromkeys(everyone, streams)
    for level in range(2):
        experts = {owner: branch(parameters[f'level_{level}_expert_{owner}_0'], inputs[owner]) for owner in everyone}
        outputs = {}
        for reader in everyone if level == 0 else tasks:
            read = everyone if reader == 'shared' else (reader, 'shared')
            weights = gate(parameters[f'level_{level}_gate_{reader}'], inputs[reader], mask)
            outputs[reader] = mix(weights, [experts[owner] for owner in read])
        inputs = outputs
    return inputs


def cross_stitch(parameters, streams, mask, tasks):
    own = {task: branch(parameters[f'{task}_0'], streams) for task in tasks}
    return {
        task: {
            name: sum(parameters[f'stitch_0_{name}'][t, j] * own[other][name] for j, other in enumerate(tasks))
            for name in streams
        }
        for t, task in enumerate(tasks)
    }


def combined(parameters, streams, mask, tasks):
    shared = branch(parameters['trunk'], streams)
    joint = {
        name: norm(parameters[f'norm_{name}'], dense(parameters[f'joint_{name}'], x)) for name, x in shared.items()
    }
    parts = {name: np.split(stream, len(tasks), axis=-1) for name, stream in joint.items()}
    return {task: {name: parts[name][t] for name in parts} for t, task in enumerate(tasks)}


def task_attention(parameters, streams, mask, tasks):
    own = {task: branch(parameters[task], streams) for task in tasks}

    def project(what, task, name):
        return np.einsum('...c,chd->...hd', own[task][name], parameters[f'{what}_{task}_{name}']['kernel'])

    def attend(task, name):
        query, others = project('query', task, name), [other for other in tasks if other != task]
        keys = [project('key', other, name) for other in others]
        scores = np.stack([(query * key).sum(axis=-1) / np.sqrt(query.shape[-1]) for key in keys])
        weights = np.exp(scores) / (1 + np.exp(scores).sum(axis=0))
        taken = sum(w[..., None] * project('value', other, name) for w, other in zip(weights, others, strict=True))
        output = parameters[f'output_{task}_{name}']
        return own[task][name] + np.einsum('...hd,hdc->...c', taken, output['kernel']) + output['bias']

    return {task: {name: attend(task, name) for name in streams} for task in tasks}


def selection(of_stage, stage, seen):
    hidden = np.maximum(norm(of_stage['norm'], dense(of_stage['inner'], seen)), 0)
    return sigmoid(dense(of_stage['mask'], hidden)) * stage


def mtan(parameters, streams, mask, tasks):
    """Returns the tokens only where there is one map, whose mean they see."""
    stages = {'map_0': streams['map_0'], 'tokens': layer(parameters['trunk_0'], streams['tokens'])}
    outputs = {}
    for task in tasks:
        level = selection(parameters[f'{task}_0'], stages['map_0'], stages['map_0'])
        mean = np.broadcast_to(level.mean(axis=(1, 2))[:, None], (*stages['tokens'].shape[:2], level.shape[-1]))
        seen = np.concatenate([stages['tokens'], mean], axis=-1)
        outputs[task] = {'tokens': selection(parameters[f'{task}_1'], stages['tokens'], seen), 'map_0': level}
    return outputs


def hierarchical(parameters, streams, mask, tasks):
    outputs, inputs = {}, streams
    for task in tasks:
        outputs[task] = branch(parameters[task], inputs)
        inputs = {name: np.concatenate([streams[name], outputs[task][name]], axis=-1) for name in streams}
    return outputs


def adapters(parameters, streams, mask, tasks):
    outputs = {}
    for task in tasks:
        trunk, path = branch(parameters['trunk_0'], streams), parameters[f'low_rank_{task}_0']
        outputs[task] = {
            name: x + x @ path[f'down_{name}']['kernel'] @ path[f'up_{name}']['kernel'] for name, x in trunk.items()
        }
    return outputs
