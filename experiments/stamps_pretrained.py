"""The results on the stamps from published towers: frozen, fine-tuned, with adapters; retrieval without any training.

    python -m mmtl_jax.train --config=configs/stamps.py --workdir=runs/stamps
    python -m mmtl_jax.export --workdir=runs/stamps --out=runs/towers
    python -m experiments.stamps_pretrained --runs=runs/pretrained --out=docs/results/stamps_pretrained.md

The first two make the tower of speech. The third trains what is missing in `--runs` (each run is the config's command
with an argument and a seed) and writes the tables; `--train=false` only reads the runs that are there.
"""

import ast
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from configs import stamps_pretrained
from experiments.runs import Options, machines, run_experiment, table, train_rows, train_run, training_seconds
from mmtl_jax import data, pretrained
from mmtl_jax.core.files import read_json
from mmtl_jax.core.types import Features
from mmtl_jax.metrics import retrieval
from mmtl_jax.pretrained.frozen_features import FrozenFeatures, with_frozen_features
from mmtl_jax.results import RESOURCES

CONFIG = 'configs/stamps_pretrained.py'
# Name of the row -> its config.
ROWS = {
    'image': f'{CONFIG}:image',
    'caption': f'{CONFIG}:caption',
    'speech': f'{CONFIG}:speech',
    'image+caption': CONFIG,
    'image+caption+speech': f'{CONFIG}:image_caption_speech',
    'image+caption-fine_tuned': f'{CONFIG}:image_caption/fine_tuned',
    'image+caption-lora': f'{CONFIG}:image_caption/lora',
    'scratch-image': 'configs/stamps.py:image',
    'scratch-caption': 'configs/stamps.py:caption',
    'scratch-image+caption': 'configs/stamps.py:image_caption',
    'scratch-image+caption+speech': 'configs/stamps.py',
}
SCORES = {
    'category accuracy': 'category/accuracy',
    'category macro-F1': 'category/macro_f1',
    'attributes macro-F1': 'attributes/macro_f1',
}
MODALITIES = ('image', 'caption', 'speech')
DIRECTIONS = {
    f'{asking} → {asked}': f'retrieval/{asking}_to_{asked}_r5'
    for asking in MODALITIES
    for asked in MODALITIES
    if asking != asked
}
COSTS = ('parameters trained', 'training, s', 'peak memory, MB')
# torchvision lists the classes of ImageNet; it is read, not imported.
CLASSES = 'package:torchvision/models/_meta.py'

NO_TRAINING = (
    'No training: a picture is the mean of the sentence embeddings of the 1,000 classes of ImageNet, weighted by the '
    'probabilities that EfficientNet-lite0 gives them. Nothing of the kind joins speech to the others.'
)


def scores(run: pathlib.Path, split: str) -> dict[str, float]:
    """Returns what the tables show of a finished run."""
    values = read_json(run / 'summary.json')[split]
    wanted = SCORES if run.name.startswith('scratch') else SCORES | DIRECTIONS
    found = {name: values[key] for name, key in wanted.items() if key in values}
    if (run / RESOURCES).exists():
        used = read_json(run / RESOURCES)
        trained = sum(used['trained_parameters'].values())
        costs = (trained, training_seconds(used), used['peak_memory_bytes'] / 1e6)
        found |= dict(zip(COSTS, costs, strict=True))
    return found


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns the names of the 1,000 classes of ImageNet, in their order.

    Raises:
      ValueError: torchvision is not installed.
    """
    tree = ast.parse(pretrained.locate(CLASSES).read_text(encoding='utf-8'))
    names = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_IMAGENET_CATEGORIES'
    )
    return tuple(ast.literal_eval(names))


def without_training(split: str) -> dict[str, float]:
    """Returns retrieval between pictures and captions by what the towers know: no stamp was trained on.

    A picture's embedding is the mean of the sentence embeddings of ImageNet's class names, weighted by the
    probabilities that EfficientNet-lite0 gives them; a caption's is its sentence embedding.
    """
    source, section = data.load_source('stamps', split), stamps_pretrained.get_config().data.to_dict()
    vocabularies = {'minilm': pretrained.tokenizer.tokenizer_json(stamps_pretrained.MINILM)}
    frozen = {
        key: FrozenFeatures(**spec, vocabularies=vocabularies) for key, spec in section['frozen_features'].items()
    }
    rows = with_frozen_features(source, frozen).select(['image_features', 'caption_features', 'group', 'stamp'])
    columns = {key: np.stack([np.asarray(rows[row][key]) for row in range(len(rows))]) for key in rows.keys}
    head, params = pretrained.image_classifier(pretrained.load('EfficientNetLite0', stamps_pretrained.LITE0))
    pooled = Features(tokens=columns['image_features'][:, None], mask=np.ones((len(rows), 1), bool))
    probabilities = jax.nn.softmax(head.apply({'params': params}, pooled, train=False))
    names = with_frozen_features(
        data.SequenceSource([{'caption_english_raw': name} for name in class_names()], 'imagenet_classes'),
        {'features': frozen['caption_features']},
    )
    classes = _unit(np.stack([names[row]['features'] for row in range(len(names))]))
    captions = columns['caption_features']
    found = retrieval(
        {'image': _unit(np.asarray(probabilities) @ classes), 'caption': _unit(captions)},
        dict.fromkeys(('image', 'caption'), np.ones(len(rows), bool)),
        columns['group'],
        {'image': columns['stamp'], 'caption': np.unique(captions, axis=0, return_inverse=True)[1].ravel()},
    )
    keys = {name: key.removeprefix('retrieval/') for name, key in DIRECTIONS.items()}
    return {name: found[key] for name, key in keys.items() if key in found}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True))


def page(
    runs: Mapping[str, Sequence[pathlib.Path]], zero_shot: Mapping[str, Mapping[str, float]], facts: Sequence[str]
) -> str:
    """Returns the results page.

    Args:
      runs: row -> its finished runs.
      zero_shot: split -> retrieval without training; {} where that was not measured.
      facts: of the machines.
    """
    tables = []
    for split in ('test', 'validation'):
        rows = {name: [scores(run, split) for run in found] for name, found in runs.items() if found}
        rows |= {'no training': [dict(zero_shot[split])]} if split in zero_shot else {}
        tables += [f'## {split.capitalize()}', table(rows, SCORES)]
        tables += [f'R@5 ({split}):', table(rows, DIRECTIONS)]
    spent = {name: [scores(run, 'test') for run in found] for name, found in runs.items() if found}
    return '\n\n'.join([
        '# Results on the stamps from published towers',
        f'Made by `python -m experiments.stamps_pretrained`: mean ± standard deviation over the seeds, best checkpoint '
        f'by validation. Each run is the command `python -m mmtl_jax.train --config={CONFIG}:<argument> '
        '--config.seed=<seed>` (from scratch: `configs/stamps.py`), each score one of all clips of the split.',
        'Pictures go through EfficientNet-lite0, English captions through all-MiniLM-L6-v2, both as packages ship '
        'them, and speech through the encoder that seed 0 of `configs/stamps.py` trained, written by '
        '`python -m mmtl_jax.export`; the runs from scratch read the caption in the language of the clip. Frozen '
        'unless the row says otherwise: features are computed once, and what stands on them is trained. Fine-tuned: '
        'the whole tower of the caption is, with rates that fall by .8 from layer to layer; LoRA: factors of rank 8 '
        'beside its queries and values. The picture\'s tower stays frozen there too.',
        *facts,
        *tables,
        'A picture asks once and a caption is found once, however many clips show them; between 79 captions chance '
        'reaches about .08 on validation, between 164 about .05 on test. The runs from scratch are left out: their '
        'captions stand in nine languages.',
        *([NO_TRAINING] if zero_shot else []),
        '## Cost',
        table(spent, COSTS, digits=0),
        'The training alone: features of the frozen towers were there.',
    ]) + '\n'  # fmt: skip


def work(options: Options) -> None:
    """Trains what is missing and writes the page."""
    train_rows(options, lambda run, row, seed: train_run(run, ROWS[row], seed))
    runs = {row: options.of_row(row) for row in ROWS}
    try:
        class_names()
        zero_shot = {split: without_training(split) for split in ('test', 'validation')}
    except ValueError as error:
        print(f'retrieval without training is left out: {error}')
        zero_shot = {}
    options.out.write_text(page(runs, zero_shot, machines(run for found in runs.values() for run in found)))


if __name__ == '__main__':
    sys.exit(run_experiment(__doc__, work, rows=ROWS, runs='runs/pretrained', out='docs/results/stamps_pretrained.md'))
