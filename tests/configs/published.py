"""A tiny run on published weights: sentences through BERT, in the model or as frozen features; see `write`."""

import pathlib

from ml_collections import ConfigDict

from tests.configs import tiny
from tests.pretrained import tiny_bert

# 23 entries, as many as the tiny BERT embeds.
ENTRIES = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', *'abcdefghijklmnopqrs')


def write(folder: pathlib.Path, seed: int = 0, entries: tuple[str, ...] = ENTRIES) -> pathlib.Path:
    """Returns the folder with random weights and a tokenizer."""
    tiny_bert.write_folder(folder, tiny_bert.weights(seed))
    (folder / 'vocab.txt').write_text('\n'.join(entries), encoding='utf-8')
    return folder


def examples(split: str) -> list[dict]:
    """Returns the examples of a split: of each text as many words as it has ids; few sentences are different."""
    words = {True: 'a b c d e f g h', False: 'q p o n m l k j'}
    rows = []
    for row in tiny.examples(split):
        known = row['text'] is not None
        sentence = words[row['kind'] == 0][: 2 * len(row['text']) - 1] if known else None
        rows.append({**row, 'text': sentence})
    return rows


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` is the folder of the weights, after `frozen:` where only features of it are read."""
    kind, _, folder = arg.rpartition(':')
    config = tiny.get_config().unlock()
    steps = ({'name': 'tokenize', 'key': 'text', 'vocabulary': 'published', 'out': 'ids', 'max_length': 8},)
    data = {
        **config.data.to_dict(),
        'sources': ({'name': 'tests.configs.published.examples'},),
        'vocabularies': {'published': {'kind': 'tokenizer', 'path': folder}},
        'augment': (),
        'buckets': None,
    }
    if kind == 'frozen':
        tower = {'name': 'BERT', 'pretrained': folder}
        data['frozen_features'] = {'features': {'key': 'ids', 'tower': tower, 'steps': steps}}
        data['inputs'] = {'table': 'table', 'text': 'features'}
        config.encoders.text = {'name': 'Precomputed', 'width': 8}
    else:
        data['steps'] = steps
        data['inputs'] = {'table': 'table', 'text': 'ids'}
        config.encoders.text = {'name': 'BERT', 'pretrained': folder}
    config.data = data
    config.training.num_steps, config.training.eval_every, config.training.log_every = 2, 2, 1
    return config.lock()
